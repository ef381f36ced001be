"""Any fault that prevents correct answers makes a replica unready, and a dead engine ends its process."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.replica import Replica, assemble
from app.runtime import health
from tests.app.conftest import held, metric, png, serving
from tests.app.runtime.test_shutdown import free_port, process
from tests.conftest import ROOT
from tests.phantoms import draw_phantom
from tests.waiting import HUNG_SECONDS, wait_until
from xray.gallery.gallery import Gallery
from xray.images.radiograph import PixelArray
from xray.network.model import ModelOutput
from xray.predictor import Predictor

pytestmark = pytest.mark.slow

PHANTOM = png(draw_phantom(seed=21))


def wait_until_unready(client: httpx.Client) -> str:
    """The reason that the probe gives."""
    replies: list[httpx.Response] = []

    def is_unready() -> bool:
        replies.append(client.get("/health/ready"))
        return replies[-1].status_code != HTTPStatus.OK

    wait_until(is_unready, "the end of readiness")
    assert replies[-1].status_code == HTTPStatus.SERVICE_UNAVAILABLE
    return str(replies[-1].json()["detail"])


def wait_until_ready(client: httpx.Client) -> None:
    wait_until(lambda: client.get("/health/ready").status_code == HTTPStatus.OK, "readiness")


class LyingEngine:
    """A fake that is off by a logit once it is told to."""

    name = "lying"

    def __init__(self, real: Predictor) -> None:
        self.real, self.lies = real.engine, False
        self.device, self.precision = self.real.device, self.real.precision

    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        output = self.real.forward(pixels_B1SS)
        return replace(output, logits_B=output.logits_B + 1.0) if self.lies else output

    def sizes_to_warm(self, largest: int) -> Iterable[int]:
        return self.real.sizes_to_warm(largest)


def test_hung_engine_is_unready_first_and_in_the_end_not_live_its_callers_told_and_the_process_given_up(
    service: Replica,
) -> None:
    given_up = threading.Event()
    engine, held_service = held(service, engine_dead_seconds=5)
    with serving(held_service, given_up.set) as client:
        replies: list[httpx.Response] = []
        caller = threading.Thread(target=lambda: replies.append(client.post("/classify", files={"file": PHANTOM})))
        caller.start()
        engine.entered.wait(HUNG_SECONDS)
        assert "no progress" in wait_until_unready(client)
        assert client.get("/health/live").status_code == HTTPStatus.OK
        assert not given_up.is_set()
        while client.get("/health/live").status_code == HTTPStatus.OK:
            time.sleep(0.05)
        assert given_up.wait(HUNG_SECONDS)
        caller.join()
        assert replies[0].status_code == HTTPStatus.SERVICE_UNAVAILABLE
        engine.gate.set()


def test_slow_pass_makes_the_replica_unready_and_its_end_makes_it_ready_again(service: Replica) -> None:
    engine, held_service = held(service)
    with serving(held_service, lambda: pytest.fail("a slow engine is not a lost one")) as client:
        caller = threading.Thread(target=lambda: client.post("/classify", files={"file": PHANTOM}))
        caller.start()
        engine.entered.wait(HUNG_SECONDS)
        wait_until_unready(client)
        engine.gate.set()
        caller.join()
        wait_until_ready(client)


class HeldSearch:
    """A fake gallery whose search waits for its gate."""

    def __init__(self, real: Gallery) -> None:
        self.real, self.gate = real, threading.Event()
        self.manifest, self.entries = real.manifest, real.entries
        self.memory_bytes, self.gpu_memory_bytes = real.memory_bytes, real.gpu_memory_bytes

    def search(self, *arguments: Any) -> object:
        self.gate.wait(HUNG_SECONDS)
        return self.real.search(*arguments)


@pytest.mark.parametrize("comes", [True, False])
def test_canary_that_is_late_makes_unready_and_only_one_that_never_comes_ends_the_process(
    service: Replica, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    monkeypatch.setattr(health, "CANARY_SECONDS", 0.5)
    given_up = threading.Event()
    gallery = HeldSearch(service.predictor.bundle.gallery)
    settings = service.settings.model_copy(update={"canary_seconds": 0.2, "engine_dead_seconds": 60 if comes else 3})
    bundle = replace(service.predictor.bundle, gallery=gallery)  # type: ignore[arg-type]
    with serving(assemble(settings, bundle), given_up.set) as client:
        assert "no result" in wait_until_unready(client)
        if comes:
            gallery.gate.set()
            wait_until_ready(client)
            assert not given_up.is_set()
        else:
            assert given_up.wait(HUNG_SECONDS)
        gallery.gate.set()


def test_engine_that_only_fails_is_given_up(service: Replica) -> None:
    given_up = threading.Event()
    engine, held_service = held(service)
    engine.broken = True
    engine.gate.set()
    with serving(held_service, given_up.set) as client:
        for _ in range(3):
            assert client.post("/classify", files={"file": PHANTOM}).status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        assert "forward passes failed" in wait_until_unready(client)
        assert given_up.wait(HUNG_SECONDS)


def test_engine_that_says_something_else_of_the_canary_is_unready_and_then_given_up(service: Replica) -> None:
    given_up = threading.Event()
    engine = LyingEngine(service.predictor.bundle.predictor)
    predictor = Predictor(service.predictor.bundle.predictor.manifest, engine)
    settings = service.settings.model_copy(update={"canary_seconds": 0.2})
    with serving(assemble(settings, replace(service.predictor.bundle, predictor=predictor)), given_up.set) as client:
        age = metric(client, "osteon_canary_age_seconds")
        while metric(client, "osteon_canary_age_seconds") >= age:  # until the next has its answer
            age = metric(client, "osteon_canary_age_seconds")
        assert client.get("/health/ready").status_code == HTTPStatus.OK
        engine.lies = True
        assert "differs from the first one" in wait_until_unready(client)
        assert given_up.wait(HUNG_SECONDS)


def test_canary_that_comes_back_makes_the_replica_ready_again(service: Replica) -> None:
    engine = LyingEngine(service.predictor.bundle.predictor)
    predictor = Predictor(service.predictor.bundle.predictor.manifest, engine)
    settings = service.settings.model_copy(update={"canary_seconds": 0.5})
    with serving(assemble(settings, replace(service.predictor.bundle, predictor=predictor))) as client:
        engine.lies = True
        wait_until_unready(client)
        engine.lies = False
        wait_until_ready(client)


def test_dead_engine_thread_is_given_up(service: Replica) -> None:
    given_up = threading.Event()
    doomed = assemble(service.settings, service.predictor.bundle)
    with serving(doomed, given_up.set) as client:
        assert client.get("/health/ready").status_code == HTTPStatus.OK
        doomed.predictor.batcher.stop(5)
        assert "is not running" in wait_until_unready(client)
        assert client.post("/classify", files={"file": PHANTOM}).status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert given_up.wait(HUNG_SECONDS)


HANG = """
import os, time
from pathlib import Path
from app import __main__
from app.api import operations
from xray.engines.openvino_engine import OpenVinoEngine
trigger, forward = Path(os.environ["TRIGGER"]), OpenVinoEngine.forward
def sleep():
    time.sleep(600)
def spin():
    while True:
        pass
def hold():
    sum(range(10**15))
def burn():
    until = time.thread_time() + 1
    while time.thread_time() < until:
        pass
def told():
    if trigger.exists():
        {kind}()
def hang(engine, pixels):
    {in_engine}
    return forward(engine, pixels)
def measure(registry):
    {in_loop}
    return b""
OpenVinoEngine.forward, operations.generate_latest = hang, measure
__main__.main()
"""


@contextmanager
def hanging(
    service: Replica, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, where: str = "engine"
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client, Path]]:
    """A ready process of its own, whose engine or event loop does as told once a file exists."""
    trigger, port = folder / "trigger", free_port()
    monkeypatch.setenv("TRIGGER", str(trigger))
    monkeypatch.setenv("OSTEON_ENGINE_DEAD_SECONDS", "3")
    monkeypatch.setenv("OSTEON_RESULT_CACHE_MIB", "0")
    places = {place: "told()" if where == place else "pass" for place in ("engine", "loop")}
    script = HANG.format(kind=kind, in_engine=places["engine"], in_loop=places["loop"])
    with (
        process(service.settings, port, "-c", script) as running,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HUNG_SECONDS, trust_env=False) as client,
    ):
        while running.poll() is None:
            with suppress(httpx.TransportError):
                if client.get("/health/ready").status_code == HTTPStatus.OK:
                    break
            time.sleep(0.1)
        yield running, client, trigger


@pytest.mark.parametrize(
    ("kind", "where", "status"),
    [
        ("sleep", "engine", os.EX_SOFTWARE),
        ("spin", "engine", os.EX_SOFTWARE),
        ("sleep", "loop", os.EX_SOFTWARE),
        ("hold", "engine", signal.SIGPROF),
        ("hold", "loop", signal.SIGPROF),
    ],
)
def test_process_that_hangs_ends_with_a_status_that_a_supervisor_heeds(
    service: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, where: str, status: int
) -> None:
    with hanging(service, tmp_path, monkeypatch, kind, where) as (running, client, trigger):
        trigger.touch()
        with suppress(httpx.TransportError):  # where it ends before it can say so
            client.post("/classify", files={"file": PHANTOM}) if where == "engine" else client.get("/metrics")
        assert running.wait(HUNG_SECONDS) == status


KEPT = """
import asyncio, threading, time
from app.inference.clock import ProcessClock, Ticker
from app.runtime.health import LoopWatchdog
async def main():
    clock = ProcessClock()
    watchdog = LoopWatchdog(clock, 1.0)
    watchdog.arm()
    beat = asyncio.create_task(watchdog.beat())
    Ticker(clock, watchdog.check).start()
    await asyncio.sleep(1.0)
    threading.Thread(target=lambda: sum(range(10**15)), daemon=True).start()
    await asyncio.sleep(600)
asyncio.run(main())
"""


def test_call_that_keeps_the_interpreter_to_itself_ends_the_process_with_every_traceback() -> None:
    ran = subprocess.run([sys.executable, "-c", KEPT], cwd=ROOT, capture_output=True, text=True, timeout=HUNG_SECONDS)
    assert ran.returncode == signal.SIGPROF
    assert "Thread 0x" in ran.stderr


@contextmanager
def busy_neighbors(count: int, core: int) -> Iterator[None]:
    """Other programs that want a processor."""
    script = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    hogs = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(count)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def test_process_that_was_paused_or_starved_goes_on(
    service: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hanging(service, tmp_path, monkeypatch, "burn") as (running, client, trigger):
        running.send_signal(signal.SIGSTOP)
        time.sleep(10)
        running.send_signal(signal.SIGCONT)
        wait_until_ready(client)
        trigger.touch()
        core = min(os.sched_getaffinity(0))
        for task in Path(f"/proc/{running.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {core})
        with busy_neighbors(5, core):
            reply = client.post("/classify", files={"file": PHANTOM})
        assert reply.status_code in (HTTPStatus.OK, HTTPStatus.GATEWAY_TIMEOUT)
        trigger.unlink()
        wait_until_ready(client)
        assert running.poll() is None
