"""Starts the servers to measure, with the same checkpoint on the same port, and encodes requests for each."""

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

from benchmarks.load import EncodedRequest, encode_request
from tests.phantoms import draw_phantom

ROOT = Path(__file__).resolve().parent.parent
PORT = 8765
"""Port of every server; only one runs at a time."""
ADDRESS = f"http://127.0.0.1:{PORT}"
START_SECONDS = 180
"""Timeout for a start in seconds, because it compiles the network."""
STOP_SECONDS = 20
"""Timeout for a stop in seconds, after which the process is killed."""


@dataclass(frozen=True)
class Server:
    """A server to measure: our service or a peer.

    Attributes:
        module: module that `python -m` starts, with the checkpoint and the port as arguments.
        path: path of its prediction endpoint.
        takes_json: whether it accepts an image as base64 in JSON instead of a form.
    """

    name: str
    module: str
    path: str = "/classify"
    takes_json: bool = False

    def encode(self, image: bytes, path: str = "") -> EncodedRequest:
        """Encode a request to a server with an image, to the prediction endpoint or another path."""
        address = f"{ADDRESS}{path or self.path}"
        if self.takes_json:
            return encode_request(address, json={"image": base64.b64encode(image).decode()})
        return encode_request(address, files={"file": ("image.png", image)})


OSTEON = Server("Osteon", "app")
"""Our service."""
PLAIN = Server("plain FastAPI, torch", "benchmarks.peers.plain")
LITSERVE = Server("LitServe, our OpenVINO", "benchmarks.peers.litserve_openvino", "/predict", takes_json=True)


@contextmanager
def run_server(server: Server, checkpoint: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server to measure during the block. Ours has no result cache, because callers repeat images."""
    environment = {
        "OSTEON_PORT": str(PORT),
        "OSTEON_DEVICE": "cpu",
        "OSTEON_SCOPE": "flag",  # phantoms are drawings, and 1 % of real limbs would be refused
        "OSTEON_CHECKPOINT": str(checkpoint),
        "OSTEON_RESULT_CACHE_MIB": "0",
        "PYTHONPATH": str(ROOT),
        "HOME": str(Path.home()),
        "PATH": "/usr/bin:/bin",
    }
    arguments = [] if server is OSTEON else [str(checkpoint), str(PORT)]
    command = [sys.executable, "-m", server.module, *arguments]
    # Start a new session, so that LitServe's workers, which survive its SIGTERM, can be killed as a group.
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


def resident_bytes(process: "subprocess.Popen[bytes]") -> int:
    """Return the resident memory of a server's process, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.findall(r"VmRSS:\s+(\d+)", status)[0])


def _wait_until_up(server: Server, process: "subprocess.Popen[bytes]") -> None:
    request = server.encode(cv2.imencode(".png", draw_phantom(seed=0))[1].tobytes())
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            sys.exit(f"{server.name} ended with {process.returncode}")
        try:
            reply = httpx.post(request.address, content=request.content, headers=request.headers, timeout=60)
            if reply.status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    sys.exit(f"{server.name} does not respond")
