"""What runs from the first request to the last."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from app.errors import ReloadRefusedError
from app.inference.clock import Ticker
from app.inference.predictor_service import PredictorService
from app.replica import Replica
from app.runtime.watchdog import LoopWatch, watch

logger = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the engine's thread and the watch over it; at the end finish what is queued and let the workers go."""
    replica: Replica = app.state.replica
    service, hospital = replica.predictor, replica.hospital
    service.batcher.start()
    logger.info("Serving %s.", service.generation)
    tasks = [asyncio.create_task(watch(service, replica.vitals, app.state.give_up))]
    if hospital is not None:
        # It imports the database's library, which most replicas never need.
        from app.hospital.worker import StudyWorker

        tasks.append(asyncio.create_task(StudyWorker(service, replica.results, hospital).keep_working()))
    loop_watch = LoopWatch(service.clock, service.settings.engine_dead_seconds)
    ours = threading.current_thread() is threading.main_thread()  # else this process is not ours to end or to signal
    ticker = Ticker(service.clock, loop_watch.look if ours else lambda: None)
    if ours:
        loop_watch.arm()
        tasks.append(asyncio.create_task(loop_watch.beat()))
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _start_reload, service, tasks)
    ticker.start()
    yield
    ticker.stop()
    if ours:
        loop_watch.disarm()
    for task in tasks:
        task.cancel()
    if hospital is not None:
        hospital.threads.close()
    await asyncio.to_thread(service.batcher.stop, service.settings.deadline_seconds)
    await service.passes.close()
    await replica.results.close()
    service.workers.shutdown(cancel_futures=True)


def _start_reload(service: PredictorService, tasks: list[asyncio.Task[None]]) -> None:
    tasks.append(asyncio.create_task(_reload(service)))


async def _reload(service: PredictorService) -> None:
    with suppress(ReloadRefusedError):  # it is in the log, and nobody waits for a reply
        await service.reload()
