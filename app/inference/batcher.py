"""Batches the radiographs of many callers: when the engine is free, one forward pass takes all that wait.

One thread owns the engine. Callers write their canvases into the next batch while the current one runs. When it ends,
the engine takes the next batch as it is: there is no timer, no waiting for a full batch, and nothing left to copy.

Legend: B batch, S canvas side.
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

HEARTBEAT_SECONDS = 0.5
"""Maximum time between two heartbeats of an idle engine, in seconds."""
MAX_FAILURES = 3
"""Consecutive failed passes after which the engine counts as broken: a GPU error may last until the process ends."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TimedPrediction:
    """The prediction of one radiograph, the time that it waited and the time of its batch, in seconds."""

    prediction: Prediction
    wait_seconds: float
    forward_seconds: float


@dataclass(frozen=True)
class QueuedRadiograph:
    """One radiograph of a batch that waits for the engine, and the future with its result."""

    prepared: Prepared
    queued_at: float = field(default_factory=time.monotonic)
    result: "Future[TimedPrediction]" = field(default_factory=Future)


class Batch:
    """A batch of the batcher: radiographs for one forward pass, with their canvases already in one array."""

    def __init__(self, predictor: Predictor, capacity: int, first: Prepared) -> None:
        self.predictor = predictor
        self.queued: list[QueuedRadiograph] = []
        self._pixels_B1SS = np.empty((capacity, *first.pixels_1SS.shape), np.uint8)

    def has_room(self, predictor: Predictor) -> bool:
        """Return whether one more radiograph for this predictor fits into the batch."""
        return predictor is self.predictor and len(self.queued) < len(self._pixels_B1SS)

    def add(self, radiograph: QueuedRadiograph) -> None:
        """Copy the canvas of a radiograph into the batch."""
        self._pixels_B1SS[len(self.queued)] = radiograph.prepared.pixels_1SS
        self.queued.append(radiograph)

    def forward(self, rows: Sequence[int]) -> list[Prediction]:
        """Run the engine on some rows of the batch; return their predictions in the same order."""
        is_whole = len(rows) == len(self.queued)
        pixels_B1SS = self._pixels_B1SS[: len(rows)] if is_whole else self._pixels_B1SS[list(rows)]
        output = self.predictor.engine.forward(pixels_B1SS)
        return [self.predictor.read(output, index, self.queued[row].prepared) for index, row in enumerate(rows)]


class Batcher:
    """Runs engines batch by batch in one thread; any thread may call `submit`."""

    def __init__(
        self,
        max_batch: int,
        on_batch: Callable[[int, float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a batcher; `start` runs it.

        Args:
            on_batch: called in the engine's thread with the size and the seconds of each batch.
            clock: returns seconds; a `ProcessClock` counts only those in which this process could run.
        """
        self._max_batch, self._on_batch, self._clock = max_batch, on_batch, clock
        self._batches: deque[Batch] = deque()
        self._running: Batch | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._heartbeat, self._clock_heartbeat = time.monotonic(), clock()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the batcher's thread, which runs the engine."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Finish the batcher's queue and stop its thread; wait at most `seconds` for that."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(seconds)

    @property
    def oldest_seconds(self) -> float:
        """Time that the first radiograph in the batcher's queue has waited, in seconds; 0 if the queue is empty."""
        with self._changed:
            return time.monotonic() - self._batches[0].queued[0].queued_at if self._batches else 0.0

    @property
    def queued(self) -> int:
        """Number of radiographs in the batcher's queue or in the engine's current batch."""
        with self._changed:
            batches = [self._running, *self._batches] if self._running else [*self._batches]
            return sum(not each.result.done() for batch in batches for each in batch.queued)

    @property
    def silent_seconds(self) -> float:
        """Wall time in seconds since the last heartbeat of the batcher's engine, even if the process could not run."""
        return time.monotonic() - self._heartbeat

    @property
    def idle_seconds(self) -> float:
        """Time since the latest heartbeat of the batcher's engine in which this process could run, in seconds."""
        return self._clock() - self._clock_heartbeat

    def fault(self) -> str | None:
        """Return a fault of the batcher's engine that only a restart can repair; None if there is none."""
        if not self._thread.is_alive():
            return "The engine's thread is not running."
        if self._failures >= MAX_FAILURES:
            return f"The last {self._failures} forward passes failed."
        return None

    def submit(self, predictor: Predictor, prepared: Prepared) -> "Future[TimedPrediction]":
        """Queue one radiograph for a batch of the engine.

        Raises:
            NotReadyError: the engine's thread is not running.
        """
        radiograph = QueuedRadiograph(prepared)
        with self._changed:
            if self._stopping or not self._thread.is_alive():
                raise NotReadyError("The engine is not running; try another replica.")
            if not self._batches or not self._batches[-1].has_room(predictor):
                self._batches.append(Batch(predictor, self._max_batch, prepared))
            self._batches[-1].add(radiograph)
            self._changed.notify()
        return radiograph.result

    def abandon(self) -> None:
        """Fail every radiograph in the batcher's queue, because the engine will not run again."""
        with self._changed:
            self._stopping = True
            queued = [each for batch in (self._running, *self._batches) if batch is not None for each in batch.queued]
            self._batches.clear()
        for each in queued:
            if not each.result.done():
                each.result.set_exception(NotReadyError("The engine stopped; try another replica."))

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            # A caller that disconnected or reached its deadline has canceled its future, so its row is left out.
            rows = [row for row, each in enumerate(batch.queued) if each.result.set_running_or_notify_cancel()]
            if rows:
                self._forward(batch, rows)
            self._running = None

    def _next_batch(self) -> Batch | None:
        """Wait for a batch and remove it from the queue; None if the batcher is stopped and the queue is empty."""
        with self._changed:
            while True:
                self._heartbeat, self._clock_heartbeat = time.monotonic(), self._clock()
                if self._batches:
                    self._running = self._batches.popleft()
                    return self._running
                if self._stopping:
                    return None
                self._changed.wait(HEARTBEAT_SECONDS)

    def _forward(self, batch: Batch, rows: Sequence[int]) -> None:
        queued, started = [batch.queued[row] for row in rows], time.monotonic()
        try:
            predictions = batch.forward(rows)
        except Exception:  # an error affects only the callers in this batch, and the thread has to continue
            logger.exception("The forward pass of %d radiographs failed.", len(queued))
            self._failures += 1
            for each in queued:
                each.result.set_exception(
                    EngineError("The network failed, which is a fault of the service; send the request again.")
                )
            return
        self._failures = 0
        seconds = time.monotonic() - started
        for each, prediction in zip(queued, predictions, strict=True):
            if not each.result.done():  # `abandon` may have failed it in the meantime
                each.result.set_result(TimedPrediction(prediction, started - each.queued_at, seconds))
        self._on_batch(len(queued), seconds)
