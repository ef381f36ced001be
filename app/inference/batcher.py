"""Prepared radiographs of many callers in, one forward pass for all that wait.

One thread owns the engine. Callers write their canvases into the batch that goes next while the present one runs;
whenever the engine is free it takes that batch as it stands: no timer, no waiting for company, nothing left to copy.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from app.errors import EngineError, NotReadyError
from xray.predictor import Prediction, Predictor, Prepared

BEAT_SECONDS = 0.5
"""Longest time between two signs of life of an engine that has nothing to do."""
BROKEN_AFTER = 3
"""Failed passes in a row after which the engine is given up: a GPU's error may stick until the process ends."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pass:
    """What the network says about one radiograph, and the seconds it waited and its batch took."""

    prediction: Prediction
    wait_seconds: float
    forward_seconds: float


@dataclass(frozen=True)
class Job:
    """One radiograph and the caller's promise."""

    prepared: Prepared
    queued: float = field(default_factory=time.monotonic)
    result: "Future[Pass]" = field(default_factory=Future)


class Batch:
    """Radiographs that one engine will see together; the canvases already stand in one array."""

    def __init__(self, predictor: Predictor, capacity: int, first: Prepared) -> None:
        self.predictor = predictor
        self.jobs: list[Job] = []
        self._pixels_B1SS = np.empty((capacity, *first.pixels_1SS.shape), np.uint8)

    def takes(self, predictor: Predictor) -> bool:
        return predictor is self.predictor and len(self.jobs) < len(self._pixels_B1SS)

    def add(self, job: Job) -> None:
        self._pixels_B1SS[len(self.jobs)] = job.prepared.pixels_1SS
        self.jobs.append(job)

    def forward(self, rows: Sequence[int]) -> list[Prediction]:
        """What the engine says of some of the jobs, in their order."""
        everyone = len(rows) == len(self.jobs)
        pixels_B1SS = self._pixels_B1SS[: len(rows)] if everyone else self._pixels_B1SS[list(rows)]
        output = self.predictor.engine.forward(pixels_B1SS)
        return [self.predictor.read(output, place, self.jobs[row].prepared) for place, row in enumerate(rows)]


class Batcher:
    """Runs engines in one thread; `submit` may be called from any."""

    def __init__(
        self,
        max_batch: int,
        on_batch: Callable[[int, float], None],
        own_time: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a batcher that does not run yet.

        Args:
            on_batch: told, in the engine's thread, the size of each batch and the seconds it took.
            own_time: seconds in which this process could run (`app.inference.clock`).
        """
        self._max_batch, self._on_batch, self._own_time = max_batch, on_batch, own_time
        self._batches: deque[Batch] = deque()
        self._running: Batch | None = None
        self._work = threading.Condition()
        self._stopping = False
        self._beat, self._own_beat = time.monotonic(), own_time()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Finish what is queued, then end the thread; wait for it no longer than `seconds`."""
        with self._work:
            self._stopping = True
            self._work.notify()
        self._thread.join(seconds)

    @property
    def oldest_seconds(self) -> float:
        """How long the first in the queue has waited; 0 when nobody waits."""
        with self._work:
            return time.monotonic() - self._batches[0].jobs[0].queued if self._batches else 0.0

    @property
    def queued(self) -> int:
        """Radiographs that wait for the engine or are with it, whoever queued them."""
        with self._work:
            batches = [self._running, *self._batches] if self._running else [*self._batches]
            return sum(not job.result.done() for batch in batches for job in batch.jobs)

    @property
    def silent_seconds(self) -> float:
        """Time since the engine's last sign of life, whatever kept it from the next."""
        return time.monotonic() - self._beat

    @property
    def idle_seconds(self) -> float:
        """The same in time that this process could use: what counts against the engine."""
        return self._own_time() - self._own_beat

    def fault(self) -> str | None:
        """What will not pass, if anything."""
        if not self._thread.is_alive():
            return "The engine's thread does not run."
        if self._failures >= BROKEN_AFTER:
            return f"The last {self._failures} forward passes failed."
        return None

    def submit(self, predictor: Predictor, prepared: Prepared) -> "Future[Pass]":
        """Queue one radiograph.

        Raises:
            NotReadyError: the engine's thread does not run.
        """
        job = Job(prepared)
        with self._work:
            if self._stopping or not self._thread.is_alive():
                raise NotReadyError("The engine is not running; try another replica.")
            if not self._batches or not self._batches[-1].takes(predictor):
                self._batches.append(Batch(predictor, self._max_batch, prepared))
            self._batches[-1].add(job)
            self._work.notify()
        return job.result

    def abandon(self) -> None:
        """Tell all who wait that no answer will come."""
        with self._work:
            self._stopping = True
            jobs = [job for batch in (self._running, *self._batches) if batch is not None for job in batch.jobs]
            self._batches.clear()
        for job in jobs:
            if not job.result.done():
                job.result.set_exception(NotReadyError("The engine stopped; try another replica."))

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            # A caller that hung up or came to its deadline has cancelled its future; it costs nothing more.
            rows = [row for row, job in enumerate(batch.jobs) if job.result.set_running_or_notify_cancel()]
            if rows:
                self._forward(batch, rows)
            self._running = None

    def _next(self) -> Batch | None:
        """The batch at the head of the queue as soon as there is one; None when there will be none."""
        with self._work:
            while True:
                self._beat, self._own_beat = time.monotonic(), self._own_time()
                if self._batches:
                    self._running = self._batches.popleft()
                    return self._running
                if self._stopping:
                    return None
                self._work.wait(BEAT_SECONDS)

    def _forward(self, batch: Batch, rows: Sequence[int]) -> None:
        jobs, started = [batch.jobs[row] for row in rows], time.monotonic()
        try:
            predictions = batch.forward(rows)
        except Exception:  # whatever the engine throws belongs to these callers, and the thread lives on
            logger.exception("The forward pass of %d radiographs failed.", len(jobs))
            self._failures += 1
            for job in jobs:
                job.result.set_exception(EngineError("The network failed; this is our fault. Send the request again."))
            return
        self._failures = 0
        seconds = time.monotonic() - started
        for job, prediction in zip(jobs, predictions, strict=True):
            if not job.result.done():  # abandoned meanwhile
                job.result.set_result(Pass(prediction, started - job.queued, seconds))
        self._on_batch(len(jobs), seconds)
