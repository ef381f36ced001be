"""A clock that counts only the time in which this process could run, to tell a hang from a pause or starvation.

Wall time also passes while a virtual machine is paused, while the process is stopped, and while other programs use the
processors. None of these is a hang, so the watchdogs that end the process use only this clock.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

TICK_SECONDS = 0.5
"""Interval between two ticks of the clock, in seconds."""
MAX_TICK_SECONDS = 2 * TICK_SECONDS
"""Maximum time that one tick adds, in seconds. A later tick means that something else delayed the process."""
TASKS = Path("/proc/self/task")
NANOSECOND = 1e-9

CpuWaits = Mapping[str, float]
"""Seconds that each thread has waited for a processor since its start, by thread ID."""


def read_cpu_waits() -> CpuWaits:
    """Return the waits by which the clock notices starvation: how long each thread has waited for a processor.

    The threads are those of this process; the mapping is empty if Linux keeps no such records.
    """
    waits: dict[str, float] = {}
    try:
        for task in TASKS.iterdir():
            try:
                waits[task.name] = int((task / "schedstat").read_text().split()[1]) * NANOSECOND
            except (OSError, IndexError, ValueError):
                continue  # the thread has ended, or the kernel keeps no such record
    except OSError:
        return {}
    return waits


class ProcessClock:
    """A clock that stops while the process is paused and slows down while its threads wait for a processor."""

    def __init__(
        self, now: Callable[[], float] = time.monotonic, cpu_waits: Callable[[], CpuWaits] = read_cpu_waits
    ) -> None:
        self._now = now
        self._cpu_waits = cpu_waits
        self._seconds = 0.0
        self._last_tick = now()
        self._last_waits = cpu_waits()

    def __call__(self) -> float:
        """Return the seconds from the creation of the clock to its latest tick."""
        return self._seconds

    def tick(self) -> None:
        """Advance the clock by the part of the time since the latest tick in which the process could run."""
        now, waits = self._now(), self._cpu_waits()
        could_run = min(now - self._last_tick, MAX_TICK_SECONDS)
        starved = max((waits[each] - self._last_waits.get(each, waits[each]) for each in waits), default=0.0)
        self._seconds += max(0.0, could_run - max(0.0, starved))
        self._last_tick, self._last_waits = now, waits


class Ticker:
    """A thread that ticks a clock, and calls a function after each tick."""

    def __init__(self, clock: ProcessClock, on_tick: Callable[[], None]) -> None:
        self._clock, self._on_tick = clock, on_tick
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)

    def start(self) -> None:
        """Start the thread that ticks the clock."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread that ticks the clock, and wait for its last tick."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(TICK_SECONDS):
            self._clock.tick()
            self._on_tick()
