"""A loaded service in, the application around it out."""

from collections.abc import Callable

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app import jobs, operations, results, routes, stow
from app.errors import install_error_handlers
from app.lifespan import lifespan
from app.metrics import MeasuredRequests
from app.middleware import PlainPaths, ReadToTheEnd
from app.schemas import NOTICE
from app.service import Service
from app.watch import end_process
from xray.network.checkpoint import CODE_VERSION


def create_app(service: Service, give_up: Callable[[], None] = end_process) -> FastAPI:
    """Wire routes, metrics, errors and the service's life together.

    Args:
        give_up: called when the engine is lost; a new process must take over.
    """
    app = FastAPIOffline(
        title="Osteon", version=CODE_VERSION, description=NOTICE, lifespan=lifespan, redirect_slashes=False
    )
    app.state.service, app.state.give_up = service, give_up
    app.add_middleware(MeasuredRequests, metrics=service.metrics, draining=lambda: service.vitals.draining)
    app.add_middleware(PlainPaths)
    app.add_middleware(ReadToTheEnd)
    app.include_router(routes.router)
    app.include_router(operations.router)
    app.include_router(stow.router)
    app.include_router(jobs.router)
    app.include_router(results.router)
    install_error_handlers(app)
    return app
