"""Settings in, the application out."""

from fastapi import FastAPI

from app.errors import install_error_handlers
from app.lifespan import lifespan
from app.metrics import MeasuredRequests
from app.routes import router
from app.schemas import NOTICE
from app.service import load_service
from app.settings import Settings
from xray.checkpoint import CODE_VERSION


def create_app(settings: Settings) -> FastAPI:
    """Load and verify the artifacts and build the application around them.

    Raises:
        ArtifactError: a checkpoint or gallery file is missing or damaged.
        InputError: the device is not there.
    """
    service = load_service(settings)
    app = FastAPI(title="Osteon", version=CODE_VERSION, description=NOTICE, lifespan=lifespan)
    app.state.service = service
    app.add_middleware(MeasuredRequests, metrics=service.metrics)
    app.include_router(router)
    install_error_handlers(app)
    return app
