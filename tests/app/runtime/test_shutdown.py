"""The service stops on SIGTERM with every accepted request answered, and no client can block it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from app.replica import Replica, assemble
from app.settings import Settings, read_settings
from tests.app.conftest import png, serving
from tests.conftest import ROOT
from tests.phantoms import draw_phantom
from tests.waiting import HUNG_SECONDS
from xray.errors import InputError

pytestmark = pytest.mark.slow


@contextmanager
def process(settings: Settings, port: int, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m app`, or another command of this interpreter, on a port; ended with the block."""
    environment = os.environ | {
        "OSTEON_CHECKPOINT": str(settings.checkpoint),
        "OSTEON_GALLERY": str(settings.gallery),
        "OSTEON_DEVICE": "cpu",
        "OSTEON_PORT": str(port),
    }
    words = [sys.executable, *(command or ("-m", "app"))]
    with subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as running:
        try:
            yield running
        finally:
            running.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def health(port: int) -> int:
    """Exit status of the container's health check, in an environment that names a proxy."""
    environment = os.environ | {"OSTEON_PORT": str(port), "HTTP_PROXY": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, "-m", "app.runtime.healthcheck"], cwd=ROOT, env=environment, capture_output=True, check=False
    ).returncode


def test_port_in_use_is_named_with_the_setting_that_changes_it(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with process(settings, port) as running:
            _, log = running.communicate(timeout=HUNG_SECONDS)
    assert running.returncode == 3
    assert f"127.0.0.1:{port} cannot be opened; set OSTEON_PORT" in log.decode()


@pytest.mark.parametrize("seconds", [1.0, 2.0])
def test_told_to_stop_while_starting_it_exits_with_0(settings: Settings, seconds: float) -> None:
    with process(settings, free_port()) as running:
        time.sleep(seconds)
        running.send_signal(signal.SIGTERM)
        assert running.wait(HUNG_SECONDS) == 0


def test_healthy_until_told_to_stop_and_then_it_exits_with_0(settings: Settings) -> None:
    port = free_port()
    assert health(port) == 1
    with process(settings, port) as running:
        while health(port) != 0:
            assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        assert running.wait(HUNG_SECONDS) == 0
    assert health(port) == 1


@pytest.mark.parametrize(("name", "value"), [("port", 70000), ("max_files", 0), ("device", "tpu")])
def test_setting_out_of_range_is_refused_by_its_variables_name(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"OSTEON_{name.upper()}: "):
        read_settings(**{name: value})


def test_slip_in_a_settings_name_is_told_and_anothers_variable_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTEON_SERVICE_PORT", "8000")
    read_settings()
    monkeypatch.setenv("OSTEON_GALERY", "mine")
    with pytest.raises(InputError, match="OSTEON_GALERY is not a setting; did you mean OSTEON_GALLERY"):
        read_settings()


@pytest.mark.parametrize("name", ["OSTEON_PORT", "OSTEON_DICOM_PORT"])
def test_address_of_a_kubernetes_service_counts_as_not_set_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    addresses = {
        name: "tcp://10.96.0.12:8000",
        "OSTEON_SERVICE_HOST": "10.96.0.12",
        "OSTEON_SERVICE_PORT_HTTP": "8000",
        "OSTEON_PORT_8000_TCP": "tcp://10.96.0.12:8000",
        "OSTEON_PORT_8000_TCP_ADDR": "10.96.0.12",
        "OSTEON_DICOM_SERVICE_PORT": "11112",
    }
    for variable, value in addresses.items():
        monkeypatch.setenv(variable, value)
    settings = read_settings()
    assert (settings.port, settings.dicom_port) == (8000, 11112)
    assert f"{name} has the address of a Kubernetes Service" in caplog.text
    assert "10.96" not in caplog.text


def test_health_check_finds_its_port_where_a_kubernetes_service_has_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OSTEON_PORT", "tcp://10.96.0.12:8000")
    command = [sys.executable, "-m", "app.runtime.healthcheck"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HUNG_SECONDS, check=False)
    assert "Traceback" not in ran.stderr
    assert "Kubernetes Service" in ran.stderr


def test_caller_that_never_sends_its_body_gets_a_504_and_frees_its_place(service: Replica, radiograph: bytes) -> None:
    hurried = assemble(
        service.settings.model_copy(update={"deadline_seconds": 0.5, "max_pending": 1}), service.predictor.bundle
    )
    with serving(hurried) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=HUNG_SECONDS) as slow:
            slow.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\n")
            assert slow.recv(4096).split(b"\r\n")[0].split()[1] == b"504"
        assert client.post("/classify", files={"file": radiograph}).status_code == httpx.codes.OK


def test_told_to_stop_under_load_it_answers_all_whose_connection_it_took(settings: Settings) -> None:
    port = free_port()
    with process(settings, port) as running:
        while health(port) != 0:
            assert running.poll() is None
        lost: list[httpx.TransportError] = []
        after_the_signal: list[httpx.Response] = []
        refused, told = threading.Event(), threading.Event()

        def call_until_refused(seed: int) -> None:
            body = {"file": png(draw_phantom(seed))}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HUNG_SECONDS, trust_env=False) as client:
                while True:
                    try:
                        reply = client.post("/classify", files=body)
                    except httpx.ConnectError:
                        refused.set()
                        return
                    except httpx.TransportError as error:
                        lost.append(error)
                        return
                    if told.is_set():
                        after_the_signal.append(reply)

        callers = [threading.Thread(target=call_until_refused, args=(seed,)) for seed in range(6)]
        for caller in callers:
            caller.start()
        time.sleep(1)
        running.send_signal(signal.SIGTERM)
        told.set()
        time.sleep(0.3)
        assert health(port) == 1
        for caller in callers:
            caller.join(HUNG_SECONDS)
        assert running.wait(HUNG_SECONDS) == 0
    assert lost == []
    assert refused.is_set()
    assert {reply.status_code for reply in after_the_signal} <= {200, 429}
    assert any(reply.headers.get("Connection") == "close" for reply in after_the_signal)


def test_caller_that_connected_in_time_and_asks_late_is_answered(settings: Settings) -> None:
    port = free_port()
    with process(settings, port) as running:
        while health(port) != 0:
            assert running.poll() is None
        with socket.create_connection(("127.0.0.1", port), timeout=HUNG_SECONDS) as late:
            running.send_signal(signal.SIGTERM)
            time.sleep(settings.drain_seconds + 2)
            late.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert late.recv(4096).startswith(b"HTTP/1.1 200")
        assert running.wait(HUNG_SECONDS) == 0


def test_connection_without_a_head_is_closed_and_others_are_answered(settings: Settings) -> None:
    port = free_port()
    with process(
        settings,
        port,
        "-c",
        "import app.__main__ as m, app.runtime.connections as c; c.HEADER_TIMEOUT_SECONDS = 1; m.main()",
    ):
        while health(port) != 0:
            time.sleep(0.1)
        with socket.create_connection(("127.0.0.1", port), timeout=HUNG_SECONDS) as silent:
            assert health(port) == 0
            assert silent.recv(1) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=HUNG_SECONDS) as dawdling:
            dawdling.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            reply = b""
            while not reply.endswith(b"}"):
                reply += dawdling.recv(4096)
            assert reply.startswith(b"HTTP/1.1 200")
            dawdling.sendall(b"GET /health/live HTTP/1.1\r\n")
            assert dawdling.recv(1) == b""
