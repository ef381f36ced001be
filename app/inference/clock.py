"""Time in which this process could run: what tells one that hangs from one that was paused or starved.

Wall time goes on while a virtual machine is paused, while the process is stopped, and while other programs have the
processors. None of that is a sign of death, so whatever ends the process counts this time and no other.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

TICK_SECONDS = 0.5
LATEST_SECONDS = 2 * TICK_SECONDS
"""A tick that comes later was kept from coming; the time beyond does not count."""
TASKS = Path("/proc/self/task")
NANOSECOND = 1e-9

Waits = Mapping[str, float]
"""Seconds that each thread has waited for a processor, since its begin."""


def waits_for_processors() -> Waits:
    """What Linux says of the threads of this process; nothing where it does not say."""
    waits: dict[str, float] = {}
    try:
        for task in TASKS.iterdir():
            try:
                waits[task.name] = int((task / "schedstat").read_text().split()[1]) * NANOSECOND
            except (OSError, IndexError, ValueError):
                continue  # the thread has ended, or the kernel keeps no such account
    except OSError:
        return {}
    return waits


class OwnTime:
    """A clock that stands while the process is paused, and runs as slowly as its most starved thread."""

    def __init__(
        self, now: Callable[[], float] = time.monotonic, waits: Callable[[], Waits] = waits_for_processors
    ) -> None:
        self._now, self._waits = now, waits
        self._seconds = 0.0
        self._latest, self._latest_waits = now(), waits()

    def __call__(self) -> float:
        """Seconds since the clock was made, as of its latest tick."""
        return self._seconds

    def tick(self) -> None:
        """Count the time since the latest tick, as far as the process could use it."""
        now, waits = self._now(), self._waits()
        could_run = min(now - self._latest, LATEST_SECONDS)
        starved = max((waits[each] - self._latest_waits.get(each, waits[each]) for each in waits), default=0.0)
        self._seconds += max(0.0, could_run - max(0.0, starved))
        self._latest, self._latest_waits = now, waits


class Ticker:
    """A thread that lets a clock tick, and looks each time at what must not stand still."""

    def __init__(self, clock: OwnTime, on_tick: Callable[[], None]) -> None:
        self._clock, self._on_tick = clock, on_tick
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for its last tick."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(TICK_SECONDS):
            self._clock.tick()
            self._on_tick()
