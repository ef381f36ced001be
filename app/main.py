"""A loaded service in, the application around it out."""

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app.errors import install_error_handlers
from app.lifespan import lifespan
from app.metrics import MeasuredRequests
from app.routes import router
from app.schemas import NOTICE
from app.service import Service
from xray.checkpoint import CODE_VERSION


def create_app(service: Service) -> FastAPI:
    """Wire routes, metrics, errors and the service's life together."""
    app = FastAPIOffline(title="Osteon", version=CODE_VERSION, description=NOTICE, lifespan=lifespan)
    app.state.service = service
    app.add_middleware(MeasuredRequests, metrics=service.metrics)
    app.include_router(router)
    install_error_handlers(app)
    return app
