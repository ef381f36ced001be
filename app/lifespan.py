"""What runs from the first request to the last."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.service import Service


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the engine's thread; at the end finish what is queued and let the workers go."""
    service: Service = app.state.service
    service.batcher.start()
    yield
    service.batcher.stop()
    service.workers.shutdown(cancel_futures=True)
