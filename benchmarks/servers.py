"""The servers that are measured, with the same checkpoint on the same port, and how each wants to be asked."""

import base64
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx

from benchmarks.load import Question, question
from tests.phantoms import draw_phantom

ROOT = Path(__file__).resolve().parent.parent
PORT = 8765
ADDRESS = f"http://127.0.0.1:{PORT}"
START_SECONDS = 180
STOP_SECONDS = 20


@dataclass(frozen=True)
class Server:
    """One contender.

    Attributes:
        module: what `python -m` starts; it is given the checkpoint and the port.
        path: where it answers.
        takes_json: whether an image goes there as base64 in JSON, and not in a form.
    """

    name: str
    module: str
    path: str = "/classify"
    takes_json: bool = False

    def ask(self, image: bytes, path: str = "") -> Question:
        address = f"{ADDRESS}{path or self.path}"
        if self.takes_json:
            return question(address, json={"image": base64.b64encode(image).decode()})
        return question(address, files={"file": ("image.png", image)})


OSTEON = Server("Osteon", "app")
PLAIN = Server("plain FastAPI, torch", "benchmarks.peers.plain")
LITSERVE = Server("LitServe, our OpenVINO", "benchmarks.peers.litserve_openvino", "/predict", takes_json=True)


@contextmanager
def serving(server: Server, checkpoint: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server on its port for the block; ours keeps no answers, for the callers repeat their images."""
    environment = {
        "OSTEON_PORT": str(PORT),
        "OSTEON_DEVICE": "cpu",
        "OSTEON_SCOPE": "flag",  # phantoms are drawings, and one in a hundred limbs is refused
        "OSTEON_CHECKPOINT": str(checkpoint),
        "OSTEON_RESULT_CACHE_MIB": "0",
        "PYTHONPATH": str(ROOT),
        "HOME": str(Path.home()),
        "PATH": "/usr/bin:/bin",
    }
    arguments = [] if server is OSTEON else [str(checkpoint), str(PORT)]
    command = [sys.executable, "-m", server.module, *arguments]
    # A session of its own: LitServe has workers, which outlive it when it is told to stop.
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            _wait_until_up(server, process)
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def resident(process: "subprocess.Popen[bytes]") -> int:
    """Bytes of a process's memory that are in RAM."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.findall(r"VmRSS:\s+(\d+)", status)[0])


def _wait_until_up(server: Server, process: "subprocess.Popen[bytes]") -> None:
    asked = server.ask(cv2.imencode(".png", draw_phantom(seed=0))[1].tobytes())
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            sys.exit(f"{server.name} ended with {process.returncode}")
        try:
            reply = httpx.post(asked.address, content=asked.content, headers=asked.headers, timeout=60)
            if reply.status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    sys.exit(f"{server.name} does not answer")
