"""The service ends when it is told to, and no caller keeps it from its work."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from app.service import Service, assemble
from app.settings import Settings, read_settings
from tests.app.conftest import serving
from tests.conftest import ROOT
from xray.errors import InputError


@contextmanager
def process(settings: Settings, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m app` on a port, ended with the block."""
    environment = os.environ | {
        "OSTEON_CHECKPOINT": str(settings.checkpoint),
        "OSTEON_GALLERY": str(settings.gallery),
        "OSTEON_DEVICE": "cpu",
        "OSTEON_PORT": str(port),
    }
    with subprocess.Popen([sys.executable, "-m", "app"], cwd=ROOT, env=environment, stderr=subprocess.PIPE) as running:
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
        [sys.executable, "-m", "app.health"], cwd=ROOT, env=environment, capture_output=True, check=False
    ).returncode


@pytest.mark.parametrize("seconds", [1.0, 2.0])
def test_told_to_stop_while_starting_it_exits_with_0(settings: Settings, seconds: float) -> None:
    with process(settings, free_port()) as running:
        time.sleep(seconds)
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0


def test_healthy_until_told_to_stop_and_then_it_exits_with_0(settings: Settings) -> None:
    port = free_port()
    assert health(port) == 1
    with process(settings, port) as running:
        while health(port) != 0:
            assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
    assert health(port) == 1


@pytest.mark.parametrize(("name", "value"), [("port", 70000), ("max_files", 0), ("device", "tpu")])
def test_setting_out_of_range_is_refused_by_its_variables_name(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"OSTEON_{name.upper()}: "):
        read_settings(**{name: value})


def test_caller_that_never_sends_its_body_gets_a_504_and_frees_its_place(service: Service, radiograph: bytes) -> None:
    hurried = assemble(
        service.settings.model_copy(update={"deadline_seconds": 0.5, "max_pending": 1}),
        service.predictor,
        service.gallery,
    )
    with serving(hurried) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=20) as slow:
            slow.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\n")
            assert slow.recv(4096).split(b"\r\n")[0].split()[1] == b"504"
        assert client.post("/classify", files={"file": radiograph}).status_code == httpx.codes.OK
