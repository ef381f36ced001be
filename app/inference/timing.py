"""Measures the stages of one request, for its `Server-Timing` header and the metrics."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Stage = Literal["read", "decode", "wait", "forward", "search", "encode"]


class Stages:
    """The seconds that a request spent in each stage, in the order of the stages."""

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = {}

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Add the time of the block to a stage, whether the block succeeds or not."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started)

    def add(self, stage: Stage, seconds: float) -> None:
        """Add time to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def header(self, total: float) -> str:
        """Return the value of `Server-Timing` (W3C): milliseconds of each stage, and of the whole request."""
        return ", ".join(
            f"{name};dur={1000 * seconds:.1f}" for name, seconds in [*self.seconds.items(), ("total", total)]
        )
