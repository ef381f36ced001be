"""Health cannot lie: whatever keeps a replica from answering rightly turns it unready, and a lost engine ends it."""

import threading
import time
from dataclasses import replace
from http import HTTPStatus

import httpx
import numpy as np

from app.service import Service, assemble
from tests.app.conftest import held, metric, png, serving
from tests.app.test_life import free_port, process
from tests.phantoms import draw_phantom
from xray.model import ModelOutput
from xray.predictor import Predictor

PHANTOM = png(draw_phantom(seed=21))


def wait_until_unready(client: httpx.Client, seconds: float) -> str:
    """The reason that the probe gives."""
    until = time.monotonic() + seconds
    while (reply := client.get("/health/ready")).status_code == HTTPStatus.OK:
        assert time.monotonic() < until, "still ready"
        time.sleep(0.05)
    assert reply.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    return str(reply.json()["detail"])


class LyingEngine:
    """A fake that is off by a logit once it is told to."""

    name = "lying"

    def __init__(self, real: Predictor) -> None:
        self.real, self.lies = real.engine, False

    def forward(self, pixels: np.ndarray) -> ModelOutput:
        output = self.real.forward(pixels)
        return replace(output, logits_B=output.logits_B + 1.0) if self.lies else output


def test_hung_engine_is_not_live_its_callers_are_told_and_the_process_is_given_up(service: Service) -> None:
    given_up = threading.Event()
    engine, held_service = held(service)
    with serving(held_service, given_up.set) as client:
        replies: list[httpx.Response] = []
        caller = threading.Thread(target=lambda: replies.append(client.post("/classify", files={"file": PHANTOM})))
        caller.start()
        engine.entered.wait(30)
        assert "no sign of life" in wait_until_unready(client, 3)
        assert client.get("/health/live").status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert given_up.wait(5)
        caller.join()
        assert replies[0].status_code == HTTPStatus.SERVICE_UNAVAILABLE
        engine.gate.set()


def test_engine_that_only_fails_is_given_up(service: Service) -> None:
    given_up = threading.Event()
    engine, held_service = held(service)
    engine.broken = True
    engine.gate.set()
    with serving(held_service, given_up.set) as client:
        for _ in range(3):
            assert client.post("/classify", files={"file": PHANTOM}).status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        assert "forward passes failed" in wait_until_unready(client, 3)
        assert given_up.wait(5)


def test_engine_that_says_something_else_of_the_canary_is_unready_and_then_given_up(service: Service) -> None:
    given_up = threading.Event()
    engine = LyingEngine(service.generation.predictor)
    predictor = Predictor(service.generation.predictor.manifest, engine)
    settings = service.settings.model_copy(update={"canary_seconds": 0.2})
    with serving(assemble(settings, replace(service.generation, predictor=predictor)), given_up.set) as client:
        time.sleep(0.5)
        assert client.get("/health/ready").status_code == HTTPStatus.OK
        assert metric(client, "osteon_canary_age_seconds") < 0.5
        engine.lies = True
        assert "not the known one" in wait_until_unready(client, 3)
        assert given_up.wait(5)


def test_canary_that_comes_back_makes_the_replica_ready_again(service: Service) -> None:
    engine = LyingEngine(service.generation.predictor)
    predictor = Predictor(service.generation.predictor.manifest, engine)
    settings = service.settings.model_copy(update={"canary_seconds": 0.5})
    with serving(assemble(settings, replace(service.generation, predictor=predictor))) as client:
        engine.lies = True
        wait_until_unready(client, 3)
        engine.lies = False
        time.sleep(0.8)
        assert client.get("/health/ready").status_code == HTTPStatus.OK


def test_dead_engine_thread_is_given_up(service: Service) -> None:
    given_up = threading.Event()
    doomed = assemble(service.settings, service.generation)
    with serving(doomed, given_up.set) as client:
        assert client.get("/health/ready").status_code == HTTPStatus.OK
        doomed.batcher.stop(5)
        assert "does not run" in wait_until_unready(client, 3)
        assert client.post("/classify", files={"file": PHANTOM}).status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert given_up.wait(5)


HANG = """
import time
from app import __main__
from xray.openvino_engine import OpenVinoEngine
forward, started = OpenVinoEngine.forward, time.monotonic()
def hang(engine, pixels):
    time.sleep(600 if len(pixels) == 1 and engine.answered > 4 else 0)
    engine.answered += 1
    return forward(engine, pixels)
OpenVinoEngine.answered, OpenVinoEngine.forward = 0, hang
__main__.main()
"""


def test_process_whose_engine_hangs_ends_with_a_status_that_a_supervisor_heeds(service: Service) -> None:
    port = free_port()
    with process(service.settings, port, "-c", HANG) as running:
        address = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 60
        while time.monotonic() < until and running.poll() is None:
            try:
                reply = httpx.post(f"{address}/classify", files={"file": PHANTOM}, timeout=10, trust_env=False)
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            assert reply.status_code == HTTPStatus.SERVICE_UNAVAILABLE
            break
        assert running.wait(5) == 70
