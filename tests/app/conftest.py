"""A small service on a real port: a random DenseNet-121 at 64 px and a gallery of phantoms."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
import uvicorn

from app.main import create_app
from app.replica import Replica, assemble, load_replica
from app.runtime.connections import server_config
from app.settings import Settings
from index_builder.build import BuildOptions, build
from tests.phantoms import draw_phantom, write_dataset
from tests.waiting import HUNG_SECONDS
from xray.images.radiograph import PixelArray
from xray.network.model import ModelOutput
from xray.predictor import Predictor


@contextmanager
def serving(service: Replica, give_up: Callable[[], None] = lambda: None, port: int = 0) -> Iterator[httpx.Client]:
    """Run a service on a free port for the length of the block; `give_up` stands for the end of the process."""
    server = uvicorn.Server(server_config(create_app(service, give_up), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        chosen = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{chosen}", timeout=HUNG_SECONDS) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


class HeldEngine:
    """A fake that answers only after its gate opens; raises while it is `broken`."""

    name = "held"

    def __init__(self, real: Predictor) -> None:
        self.real, self.gate, self.entered, self.broken = real.engine, threading.Event(), threading.Event(), False
        self.device, self.precision = self.real.device, self.real.precision

    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        self.entered.set()
        self.gate.wait(HUNG_SECONDS)
        if self.broken:
            raise RuntimeError("out of memory at /secret/path")
        return self.real.forward(pixels_B1SS)

    def sizes_to_warm(self, largest: int) -> Iterable[int]:
        return self.real.sizes_to_warm(largest)


def held(service: Replica, **changed: object) -> tuple[HeldEngine, Replica]:
    real = service.predictor.bundle.predictor
    engine = HeldEngine(real)
    settings = service.settings.model_copy(update=changed)
    return engine, assemble(settings, replace(service.predictor.bundle, predictor=Predictor(real.manifest, engine)))


def png(pixels: np.ndarray) -> bytes:
    """PNG bytes of an array, written by OpenCV."""
    return cv2.imencode(".png", pixels)[1].tobytes()


def metric(client: httpx.Client, name: str) -> float:
    """The value of a line of /metrics, 0 where there is none yet."""
    lines = client.get("/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "Phantoms", studies=12)


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, dataset: Path) -> Settings:
    gallery = tmp_path_factory.mktemp("artifacts") / "gallery"
    build(BuildOptions(tiny_checkpoint, dataset, gallery, device="cpu"))
    return Settings(device="cpu", checkpoint=tiny_checkpoint, gallery=gallery, canary_seconds=600, scope="off")


@pytest.fixture(scope="session")
def service(settings: Settings) -> Replica:
    return load_replica(settings)


@pytest.fixture(scope="session")
def client(service: Replica) -> Iterator[httpx.Client]:
    with serving(service) as client:
        yield client


@pytest.fixture(scope="session")
def radiograph() -> bytes:
    return png(draw_phantom(seed=7, fracture=True, height=160, width=128))
