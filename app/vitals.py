"""Whether this replica can be believed: signs of life of its engine, the canary's answer, and how long callers wait."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from app.admission import Admission
from app.batcher import Batcher
from app.errors import NotReadyError
from app.settings import Settings

HUNG_SECONDS = 2.0
HUNG_BATCHES = 8
"""A batch is never that many times slower than the latest were."""


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

    def engine_fault(self) -> str | None:
        """What is wrong with the engine, if anything."""
        batch_seconds = self.admission.pace.batch_seconds(self.settings.max_batch)
        return self.batcher.fault(max(HUNG_SECONDS, HUNG_BATCHES * batch_seconds))

    def require_live(self) -> None:
        """Raises: NotReadyError: the engine is dead or hangs, and only a new process will help."""
        _require_none(self.engine_fault)

    def require_ready(self) -> None:
        """Raises: NotReadyError: a radiograph that comes now is better sent elsewhere."""
        _require_none(self.engine_fault, self._told_to_stop, self._late, lambda: self.canary_failure)

    def _told_to_stop(self) -> str | None:
        return "This replica was told to stop." if self.draining else None

    def _late(self) -> str | None:
        oldest = self.batcher.oldest_seconds
        return f"A radiograph has waited for {oldest:.1f} s." if oldest > self.settings.deadline_seconds else None


def _require_none(*faults: Callable[[], str | None]) -> None:
    for fault in faults:
        if (text := fault()) is not None:
            raise NotReadyError(f"{text} Try another replica.")
