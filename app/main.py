"""A loaded service in, the application around it out."""

from collections.abc import Callable

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app.api import jobs, operations, predict, qido_wado, stow_rs
from app.api.schemas import NOTICE
from app.errors import install_error_handlers
from app.lifespan import lifespan
from app.replica import Replica
from app.runtime.metrics import MeasuredRequests
from app.runtime.middleware import PlainPaths, ReadToTheEnd
from app.runtime.watchdog import end_process
from xray.network.checkpoint import CODE_VERSION


def create_app(replica: Replica, give_up: Callable[[], None] = end_process) -> FastAPI:
    """Wire routes, metrics, errors and the service's life together.

    Args:
        give_up: called when the engine is lost; a new process must take over.
    """
    app = FastAPIOffline(
        title="Osteon", version=CODE_VERSION, description=NOTICE, lifespan=lifespan, redirect_slashes=False
    )
    app.state.replica, app.state.give_up = replica, give_up
    app.add_middleware(MeasuredRequests, metrics=replica.metrics, draining=lambda: replica.vitals.draining)
    app.add_middleware(PlainPaths)
    app.add_middleware(ReadToTheEnd)
    app.include_router(predict.router)
    app.include_router(operations.router)
    app.include_router(stow_rs.router)
    app.include_router(jobs.router)
    app.include_router(qido_wado.router)
    install_error_handlers(app)
    return app
