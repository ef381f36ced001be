"""The application factory, and the background tasks of the application."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app.api import jobs, operations, predict, qido_wado, stow_rs
from app.api.schemas import NOTICE
from app.errors import ReloadRefusedError, install_error_handlers
from app.inference.clock import Ticker
from app.inference.predictor_service import PredictorService
from app.replica import Replica
from app.runtime.health import LoopWatchdog, end_process, watch_engine
from app.runtime.metrics import MetricsMiddleware
from app.runtime.middleware import DrainRequestBody, NormalizePath
from xray.network.checkpoint import CODE_VERSION

logger = logging.getLogger(__name__)


def create_app(replica: Replica, give_up: Callable[[], None] = end_process) -> FastAPI:
    """Build the application: its routes, middleware, error handlers and lifespan.

    Args:
        give_up: called when the engine cannot recover; has to end the process, so that a supervisor starts a new one.
    """
    app = FastAPIOffline(
        title="Osteon", version=CODE_VERSION, description=NOTICE, lifespan=lifespan, redirect_slashes=False
    )
    app.state.replica, app.state.give_up = replica, give_up
    app.add_middleware(MetricsMiddleware, metrics=replica.metrics, draining=lambda: replica.health.draining)
    app.add_middleware(NormalizePath)
    app.add_middleware(DrainRequestBody)
    app.include_router(predict.router)
    app.include_router(operations.router)
    app.include_router(stow_rs.router)
    app.include_router(jobs.router)
    app.include_router(qido_wado.router)
    install_error_handlers(app)
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The application's lifespan: start the engine, its watchdogs and the job worker, and stop them at the end."""
    replica: Replica = app.state.replica
    predictor, hospital = replica.predictor, replica.hospital
    predictor.batcher.start()
    logger.info("Serving %s.", predictor.bundle)
    tasks = [asyncio.create_task(watch_engine(predictor, replica.health, app.state.give_up))]
    if hospital is not None:
        # Imported here because it imports the database library, which most replicas do not need.
        from app.hospital.worker import StudyWorker

        tasks.append(asyncio.create_task(StudyWorker(predictor, replica.results, hospital).keep_working()))
    loop_watchdog = LoopWatchdog(predictor.clock, predictor.settings.engine_dead_seconds)
    # In another thread the application is embedded, and its host handles signals and ends the process.
    in_main_thread = threading.current_thread() is threading.main_thread()
    ticker = Ticker(predictor.clock, loop_watchdog.check if in_main_thread else lambda: None)
    if in_main_thread:
        loop_watchdog.arm()
        tasks.append(asyncio.create_task(loop_watchdog.beat()))
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _start_reload, predictor, tasks)
    ticker.start()
    yield
    ticker.stop()
    if in_main_thread:
        loop_watchdog.disarm()
    for task in tasks:
        task.cancel()
    if hospital is not None:
        hospital.threads.close()
    await asyncio.to_thread(predictor.batcher.stop, predictor.settings.deadline_seconds)
    await predictor.decoder.close()
    await replica.results.close()
    predictor.workers.shutdown(cancel_futures=True)


def _start_reload(predictor: PredictorService, tasks: list[asyncio.Task[None]]) -> None:
    tasks.append(asyncio.create_task(_reload(predictor)))


async def _reload(predictor: PredictorService) -> None:
    with suppress(ReloadRefusedError):  # `reload` has logged the error, and no caller waits for it
        await predictor.reload()
