"""Where the time of one request went in, its `Server-Timing` header out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Stage = Literal["read", "decode", "wait", "forward", "search", "encode"]


class Stages:
    """Seconds of each stage that a request went through, in their order."""

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = {}

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Add the time of the block, whether it succeeds or not."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started)

    def add(self, stage: Stage, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def header(self, total: float) -> str:
        """The value of `Server-Timing` (W3C): milliseconds of each stage, and of the request as a whole."""
        return ", ".join(
            f"{name};dur={1000 * seconds:.1f}" for name, seconds in [*self.seconds.items(), ("total", total)]
        )
