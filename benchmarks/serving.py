"""`python -m benchmarks.serving`: our service, its peers and the engine alone, side by side in one run on one machine.

The limit is the engine in a loop over full batches. Rates are given as shares of it, so that they mean the same on
another machine; the load generator runs beside the services on the same cores.
"""

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx
import numpy as np
import tyro

from benchmarks.load import Outcome, closed_loop, open_loop
from tests.phantoms import draw_phantom
from xray.checkpoint import load_checkpoint
from xray.engine import load_engine
from xray.image import decode_radiograph
from xray.preprocess import preprocess

ROOT = Path(__file__).resolve().parent.parent
REAL = "../shared/FracAtlas/valid"
IMAGES = 64
LONGEST_SIDE = 512
BATCH = 16
"""Radiographs per pass of the engine alone."""
LOADS = (0.5, 0.9, 2.0)
"""Offered rates of the open loop, as shares of the capacity that the closed loop found."""
PORT = 8765
ADDRESS = f"http://127.0.0.1:{PORT}"
START_SECONDS = 120


@dataclass(frozen=True)
class BenchOptions:
    """Measure the starter on this machine's CPU."""

    checkpoint: Path = ROOT / "artifacts" / "starter" / "checkpoint"
    seconds: float = 20.0
    """Of each load."""
    clients: tuple[int, ...] = (1, 4, 16, 64)
    out: Path = ROOT / "benchmarks" / "serving.md"


def main() -> None:
    options = tyro.cli(BenchOptions, prog="python -m benchmarks.serving")
    bodies, source = pngs()
    limit, name = engine_alone(options, bodies)
    lines = [f"{source}; {name}; limit: the engine alone, {limit:.1f} radiographs/s in batches of {BATCH}", ""]
    commands = {
        "Osteon": [sys.executable, "-m", "app"],
        "plain FastAPI, torch": [sys.executable, "-m", "benchmarks.peers.plain", str(options.checkpoint), str(PORT)],
    }
    header = ["closed loop", *(f"{clients} clients" for clients in options.clients)]
    rows, capacity = [], 0.0
    for server, command in commands.items():
        with serving(command, options.checkpoint):
            outcomes = [measured(closed_loop(ADDRESS, bodies, clients, options.seconds)) for clients in options.clients]
        rows.append([server, *(cell(outcome, limit) for outcome in outcomes)])
        print(" | ".join(rows[-1]), flush=True)
        capacity = capacity or max(outcome.rate for outcome in outcomes)
    lines += table(header, rows)
    with serving(commands["Osteon"], options.checkpoint):
        measured(closed_loop(ADDRESS, bodies, BATCH, options.seconds / 4))
        opened = [(load, measured(open_loop(ADDRESS, bodies, load * capacity, options.seconds))) for load in LOADS]
    lines += [
        "",
        *table(["Osteon, open loop", "answered", "refused", "failed", "p50", "p99"], open_rows(opened, capacity)),
    ]
    print("\n".join(lines))
    options.out.write_text("\n".join(["# Serving, side by side", "", *lines, ""]))


def pngs() -> tuple[list[bytes], str]:
    """Radiographs of 512 pixels as PNG, and where they come from."""
    files = sorted((ROOT / REAL).rglob("*.jpg"))[::5][:IMAGES]
    if files:
        drawings = [decode_radiograph(file.read_bytes()).pixels for file in files]
    else:
        drawings = [draw_phantom(seed, seed % 2 == 0, LONGEST_SIDE, 410) for seed in range(IMAGES)]
    source = f"{len(drawings)} {'real radiographs' if files else 'phantoms'} of {LONGEST_SIDE} px as PNG"
    return [cv2.imencode(".png", drawing)[1].tobytes() for drawing in drawings], source


def engine_alone(options: BenchOptions, bodies: Sequence[bytes]) -> tuple[float, str]:
    """Radiographs per second of the engine in a loop, and its name."""
    checkpoint = load_checkpoint(options.checkpoint)
    engine = load_engine(checkpoint, "cpu")
    canvases = [preprocess(decode_radiograph(body), checkpoint.manifest.preprocess)[0] for body in bodies]
    batch = np.stack(list(itertools.islice(itertools.cycle(canvases), BATCH)))
    engine.forward(batch)
    started, passes = time.perf_counter(), 0
    while time.perf_counter() - started < options.seconds:
        engine.forward(batch)
        passes += 1
    return passes * BATCH / (time.perf_counter() - started), f"{engine.name}, {checkpoint.manifest.preprocess.size} px"


@contextmanager
def serving(command: list[str], checkpoint: Path) -> Iterator[None]:
    """A server on the port for the length of the block."""
    environment = {"OSTEON_PORT": str(PORT), "OSTEON_DEVICE": "cpu", "PYTHONPATH": str(ROOT), "HOME": str(Path.home())}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            _wait_until_up(process)
            yield
        finally:
            process.terminate()
            process.wait()


def _wait_until_up(process: subprocess.Popen[bytes]) -> None:
    body = cv2.imencode(".png", draw_phantom(seed=0))[1].tobytes()
    for _ in range(10 * START_SECONDS):
        if process.poll() is not None:
            sys.exit(f"{process.args!r} ended with {process.returncode}")
        try:
            if (
                httpx.post(f"{ADDRESS}/classify", files={"file": ("a.png", body)}, timeout=60).status_code
                == httpx.codes.OK
            ):
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    sys.exit(f"{process.args!r} does not answer")


def measured(load: Coroutine[None, None, Outcome]) -> Outcome:
    return asyncio.run(load)


def cell(outcome: Outcome, limit: float) -> str:
    """Rate as a share of the limit, and latencies."""
    share, median, late = outcome.rate / limit, 1000 * outcome.percentile(0.5), 1000 * outcome.percentile(0.99)
    refused = f", {outcome.refused / outcome.seconds:.0f}/s refused" if outcome.refused else ""
    failed = f", {outcome.failed} FAILED" if outcome.failed else ""
    return f"{share:.2f} ({outcome.rate:.1f}/s, p50 {median:.0f} ms, p99 {late:.0f} ms{refused}{failed})"


def open_rows(opened: Sequence[tuple[float, Outcome]], capacity: float) -> list[list[str]]:
    return [
        [
            f"{load:g} of {capacity:.1f}/s offered",
            f"{outcome.rate / capacity:.2f} of capacity",
            str(outcome.refused),
            str(outcome.failed),
            f"{1000 * outcome.percentile(0.5):.0f} ms",
            f"{1000 * outcome.percentile(0.99):.0f} ms",
        ]
        for load, outcome in opened
    ]


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Markdown."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


if __name__ == "__main__":
    main()
