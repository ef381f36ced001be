"""Measures the stages of one request, for its `Server-Timing` header and the metrics."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Stage = Literal["read", "decode", "wait", "forward", "search", "encode"]


class Stages:
    """The seconds that a request spent in each of its stages, in order."""

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = {}

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Add the time of the block to a stage of the request, even if the block fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started)

    def add(self, stage: Stage, seconds: float) -> None:
        """Add seconds to a stage of the request."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def header(self, total: float) -> str:
        """Return the value of the `Server-Timing` header (W3C): milliseconds of each stage and of the whole request."""
        return ", ".join(
            f"{name};dur={1000 * seconds:.1f}" for name, seconds in [*self.seconds.items(), ("total", total)]
        )
