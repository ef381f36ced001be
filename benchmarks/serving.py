"""`python -m benchmarks.serving`: measures our service, its peers and the engine alone in one run on one machine.

The limit is the rate of the engine in a loop over batches of the faster of two sizes, measured before and after each
server. Rates are shares of the limit, so that they can be compared between machines. The load generator runs on the
same cores as the services.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro

from benchmarks.load import LoadResult, closed_loop, open_loop
from benchmarks.report import ClosedLoopResult, OpenLoopResult, Page, write_page
from benchmarks.servers import LITSERVE, OSTEON, PLAIN, ROOT, Server, resident_bytes, run_server
from tests.phantoms import draw_phantom
from xray.engines.base import Engine
from xray.engines.registry import load_engine
from xray.images.decoding.decode import decode_radiograph
from xray.images.preprocess import preprocess
from xray.network.checkpoint import Checkpoint, load_checkpoint

REAL_IMAGES = "../shared/FracAtlas/valid"
"""Folder of real radiographs, beside the checkout; phantoms are used if it is missing."""
IMAGE_COUNT = 64
"""Number of different images, which the callers send in turn."""
LONGEST_SIDE = 512
"""Longer side of an image in pixels, as in MURA."""
BATCHES = (1, 16)
"""Radiographs per pass of the engine alone; 1 is faster if its features fit into the CPU's cache."""
LOADS = (0.5, 0.9, 2.0)
"""Offered rates of the open loop, as shares of the capacity that the closed loops found."""


@dataclass(frozen=True)
class BenchOptions:
    """Measure how our service and its peers serve the starter checkpoint on this machine's CPU."""

    checkpoint: Path = ROOT / "artifacts" / "starter" / "checkpoint"
    seconds: float = 10.0
    """Duration of each closed loop, in seconds."""
    rounds: int = 3
    overload_seconds: float = 60.0
    """Duration of each open loop, in seconds."""
    clients: tuple[int, ...] = (1, 4, 16, 64)
    out: Path = ROOT / "benchmarks"
    """Folder for serving.md and serving.png."""


def main() -> None:
    """Measure our service, its peers and the engine alone; write and print the page."""
    options = tyro.cli(BenchOptions, prog="python -m benchmarks.serving")
    images, source = load_pngs()
    checkpoint = load_checkpoint(options.checkpoint)
    engine = load_engine(checkpoint, "cpu")
    limits: list[float] = []
    closed: dict[str, dict[int, list[ClosedLoopResult]]] = {}
    before = rate_alone(engine, checkpoint, images, options.seconds)
    for _ in range(options.rounds):
        for server in (OSTEON, LITSERVE, PLAIN):
            outcomes = under_load(server, images, options)
            after = rate_alone(engine, checkpoint, images, options.seconds)
            limits.append((before + after) / 2)
            before = after
            rows = closed.setdefault(server.name, {})
            for clients, outcome in outcomes.items():
                rows.setdefault(clients, []).append(ClosedLoopResult(outcome, limits[-1]))
                print(f"{server.name}, {clients} clients: {rows[clients][-1]}", flush=True)
    capacity = max(statistics.median(each.outcome.rate for each in row) for row in closed[OSTEON.name].values())
    page = Page(
        f"{source}; {engine.name}, {checkpoint.manifest.preprocess.size} px; the engine alone in batches of "
        f"{BATCHES[0]} or {BATCHES[1]}",
        limits,
        closed,
        alone_seconds(engine, checkpoint, images),
        cam_seconds(images, options),
        capacity,
        list(overloaded(images, capacity, options)),
    )
    print(write_page(page, options.out))


def load_pngs() -> tuple[list[bytes], str]:
    """Return the radiographs that the callers send, 512 pixels as PNG, and a description of their source."""
    files = sorted((ROOT / REAL_IMAGES).rglob("*.jpg"))[::5][:IMAGE_COUNT]
    if files:
        drawings = [decode_radiograph(file.read_bytes()).pixels for file in files]
    else:
        drawings = [draw_phantom(seed, seed % 2 == 0, LONGEST_SIDE, 410) for seed in range(IMAGE_COUNT)]
    source = f"{len(drawings)} {'real radiographs' if files else 'phantoms'} of {LONGEST_SIDE} px as PNG"
    return [cv2.imencode(".png", drawing)[1].tobytes() for drawing in drawings], source


def rate_alone(engine: Engine, checkpoint: Checkpoint, images: Sequence[bytes], seconds: float) -> float:
    """Return the engine's radiographs per second in a loop, without a service, at the faster batch size."""
    canvases = [preprocess(decode_radiograph(image), checkpoint.manifest.preprocess)[0] for image in images]
    rates = []
    for size in BATCHES:
        batch = np.stack(list(itertools.islice(itertools.cycle(canvases), size)))
        engine.forward(batch)
        started, passes = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds / len(BATCHES):
            engine.forward(batch)
            passes += 1
        rates.append(passes * size / elapsed)
    return max(rates)


def alone_seconds(engine: Engine, checkpoint: Checkpoint, images: Sequence[bytes]) -> float:
    """Return the median seconds to decode and predict one image, without a service."""

    def answer(image: bytes) -> None:
        engine.forward(preprocess(decode_radiograph(image), checkpoint.manifest.preprocess)[0][np.newaxis])

    return statistics.median(_timed(answer, image) for image in [*images, *images])


def under_load(server: Server, images: Sequence[bytes], options: BenchOptions) -> dict[int, LoadResult]:
    """Measure a server in closed loops; return the results by number of callers."""
    requests = [server.encode(image) for image in images]
    with run_server(server, options.checkpoint):
        return {clients: asyncio.run(closed_loop(requests, clients, options.seconds)) for clients in options.clients}


def cam_seconds(images: Sequence[bytes], options: BenchOptions) -> tuple[float, float]:
    """Return the median latencies of `/classify` and `/cam` in seconds for one caller, measured alternately."""
    with run_server(OSTEON, options.checkpoint):
        ways = [[OSTEON.encode(image, path) for image in images] for path in ("/classify", "/cam")]
        rounds = [
            [asyncio.run(closed_loop(way, 1, options.seconds / 4)).percentile(0.5) for way in ways] for _ in range(4)
        ]
    classify, cam = (statistics.median(times) for times in zip(*rounds, strict=True))
    return classify, cam


def overloaded(images: Sequence[bytes], capacity: float, options: BenchOptions) -> Iterator[OpenLoopResult]:
    """Measure our service in open loops; yield the result for each of `LOADS`."""
    requests = [OSTEON.encode(image) for image in images]
    with run_server(OSTEON, options.checkpoint) as process:
        asyncio.run(closed_loop(requests, max(BATCHES), options.seconds))
        for load in LOADS:
            before = resident_bytes(process)
            outcome = asyncio.run(open_loop(requests, load * capacity, options.overload_seconds))
            yield OpenLoopResult(load, outcome, resident_bytes(process) / before - 1)


def _timed(work: Callable[[bytes], None], image: bytes) -> float:
    started = time.perf_counter()
    work(image)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
