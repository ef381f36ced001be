"""Health cannot lie: whatever keeps a replica from answering rightly turns it unready, and a lost engine ends it."""

import threading
import time
from dataclasses import replace
from http import HTTPStatus

import httpx
import numpy as np
import pytest

from app import watch
from app.service import Service, assemble
from tests.app.conftest import held, metric, png, serving
from tests.app.test_life import free_port, process
from tests.phantoms import draw_phantom
from xray.gallery import Gallery
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


def wait_until_ready(client: httpx.Client) -> None:
    until = time.monotonic() + 30
    while client.get("/health/ready").status_code != HTTPStatus.OK:
        assert time.monotonic() < until, "still not ready"
        time.sleep(0.05)


class LyingEngine:
    """A fake that is off by a logit once it is told to."""

    name = "lying"

    def __init__(self, real: Predictor) -> None:
        self.real, self.lies = real.engine, False

    def forward(self, pixels: np.ndarray) -> ModelOutput:
        output = self.real.forward(pixels)
        return replace(output, logits_B=output.logits_B + 1.0) if self.lies else output


def test_hung_engine_is_unready_first_and_in_the_end_not_live_its_callers_told_and_the_process_given_up(
    service: Service,
) -> None:
    given_up = threading.Event()
    engine, held_service = held(service, engine_dead_seconds=5)
    with serving(held_service, given_up.set) as client:
        replies: list[httpx.Response] = []
        caller = threading.Thread(target=lambda: replies.append(client.post("/classify", files={"file": PHANTOM})))
        caller.start()
        engine.entered.wait(30)
        assert "no sign of life" in wait_until_unready(client, 30)
        assert client.get("/health/live").status_code == HTTPStatus.OK
        assert not given_up.is_set()
        while client.get("/health/live").status_code == HTTPStatus.OK:
            time.sleep(0.05)
        assert given_up.wait(30)
        caller.join()
        assert replies[0].status_code == HTTPStatus.SERVICE_UNAVAILABLE
        engine.gate.set()


def test_slow_pass_makes_the_replica_unready_and_its_end_makes_it_ready_again(service: Service) -> None:
    engine, held_service = held(service)
    with serving(held_service, lambda: pytest.fail("a slow engine is not a lost one")) as client:
        caller = threading.Thread(target=lambda: client.post("/classify", files={"file": PHANTOM}))
        caller.start()
        engine.entered.wait(30)
        wait_until_unready(client, 30)
        engine.gate.set()
        caller.join()
        wait_until_ready(client)


class HeldSearch:
    """A fake gallery whose search waits for its gate."""

    def __init__(self, real: Gallery) -> None:
        self.real, self.gate = real, threading.Event()
        self.manifest, self.entries = real.manifest, real.entries
        self.memory_bytes, self.gpu_memory_bytes = real.memory_bytes, real.gpu_memory_bytes

    def search(self, *arguments: object) -> object:
        self.gate.wait(30)
        return self.real.search(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("comes", [True, False])
def test_canary_that_is_late_makes_unready_and_only_one_that_never_comes_ends_the_process(
    service: Service, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    monkeypatch.setattr(watch, "CANARY_SECONDS", 0.5)
    given_up = threading.Event()
    gallery = HeldSearch(service.generation.gallery)
    settings = service.settings.model_copy(update={"canary_seconds": 0.2, "engine_dead_seconds": 60 if comes else 3})
    generation = replace(service.generation, gallery=gallery)  # type: ignore[arg-type]
    with serving(assemble(settings, generation), given_up.set) as client:
        assert "no answer" in wait_until_unready(client, 30)
        if comes:
            gallery.gate.set()
            wait_until_ready(client)
            assert not given_up.is_set()
        else:
            assert given_up.wait(30)
        gallery.gate.set()


def test_engine_that_only_fails_is_given_up(service: Service) -> None:
    given_up = threading.Event()
    engine, held_service = held(service)
    engine.broken = True
    engine.gate.set()
    with serving(held_service, given_up.set) as client:
        for _ in range(3):
            assert client.post("/classify", files={"file": PHANTOM}).status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        assert "forward passes failed" in wait_until_unready(client, 30)
        assert given_up.wait(30)


def test_engine_that_says_something_else_of_the_canary_is_unready_and_then_given_up(service: Service) -> None:
    given_up = threading.Event()
    engine = LyingEngine(service.generation.predictor)
    predictor = Predictor(service.generation.predictor.manifest, engine)
    settings = service.settings.model_copy(update={"canary_seconds": 0.2})
    with serving(assemble(settings, replace(service.generation, predictor=predictor)), given_up.set) as client:
        age = metric(client, "osteon_canary_age_seconds")
        while metric(client, "osteon_canary_age_seconds") >= age:  # until the next has its answer
            age = metric(client, "osteon_canary_age_seconds")
        assert client.get("/health/ready").status_code == HTTPStatus.OK
        engine.lies = True
        assert "not the known one" in wait_until_unready(client, 30)
        assert given_up.wait(30)


def test_canary_that_comes_back_makes_the_replica_ready_again(service: Service) -> None:
    engine = LyingEngine(service.generation.predictor)
    predictor = Predictor(service.generation.predictor.manifest, engine)
    settings = service.settings.model_copy(update={"canary_seconds": 0.5})
    with serving(assemble(settings, replace(service.generation, predictor=predictor))) as client:
        engine.lies = True
        wait_until_unready(client, 30)
        engine.lies = False
        wait_until_ready(client)


def test_dead_engine_thread_is_given_up(service: Service) -> None:
    given_up = threading.Event()
    doomed = assemble(service.settings, service.generation)
    with serving(doomed, given_up.set) as client:
        assert client.get("/health/ready").status_code == HTTPStatus.OK
        doomed.batcher.stop(5)
        assert "does not run" in wait_until_unready(client, 30)
        assert client.post("/classify", files={"file": PHANTOM}).status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert given_up.wait(30)


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
