"""Whether this replica can be believed: signs of life of its engine, the canary's answer, and how long callers wait."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from app.errors import NotReadyError
from app.inference.admission import Admission
from app.inference.batcher import Batcher
from app.settings import Settings

SILENT_SECONDS = 2.5
"""Without a sign of life of the engine, after which a replica is not ready; a paused or starved one is not either."""
SILENT_BATCHES = 3
DEAD_BATCHES = 8
"""A batch takes longer than these limits on a machine whose latest ones took so many times less."""


@dataclass
class Vitals:
    """What the probes of an orchestrator ask for.

    Attributes:
        draining: told to stop; what is inside will be answered, and what comes should go elsewhere.
        canary_failure: what the latest canary came to, None when its answer was the known one.
        canary_time: when it last was.
    """

    settings: Settings
    batcher: Batcher
    admission: Admission
    draining: bool = False
    canary_failure: str | None = None
    canary_time: float = field(default_factory=time.monotonic)

    @property
    def canary_age(self) -> float:
        """Seconds since the canary last had its known answer."""
        return time.monotonic() - self.canary_time

    def canary_came(self, failure: str | None) -> None:
        self.canary_failure = failure
        if failure is None:
            self.canary_time = time.monotonic()

    def lost(self) -> str | None:
        """Why only a new process will help, if that is so."""
        if fault := self.batcher.fault():
            return fault
        idle, limit = self.batcher.idle_seconds, self.settings.engine_dead_seconds
        if idle > max(limit, DEAD_BATCHES * self._batch_seconds):
            return f"The engine has given no sign of life in {idle:.0f} s that the process could run."
        return None

    def require_live(self) -> None:
        """Raises: NotReadyError: the engine is dead or hangs, and only a new process will help."""
        _require_none(self.lost)

    def require_ready(self) -> None:
        """Raises: NotReadyError: a radiograph that comes now is better sent elsewhere."""
        _require_none(self.lost, self._silent, self._told_to_stop, self._late, lambda: self.canary_failure)

    @property
    def _batch_seconds(self) -> float:
        return self.admission.pace.batch_seconds(self.settings.max_batch)

    def _silent(self) -> str | None:
        silent = self.batcher.silent_seconds
        patience = max(SILENT_SECONDS, SILENT_BATCHES * self._batch_seconds)
        return f"The engine has given no sign of life for {silent:.1f} s." if silent > patience else None

    def _told_to_stop(self) -> str | None:
        return "This replica was told to stop." if self.draining else None

    def _late(self) -> str | None:
        oldest = self.batcher.oldest_seconds
        return f"A radiograph has waited for {oldest:.1f} s." if oldest > self.settings.deadline_seconds else None


def _require_none(*faults: Callable[[], str | None]) -> None:
    for fault in faults:
        if (text := fault()) is not None:
            raise NotReadyError(f"{text} Try another replica.")
