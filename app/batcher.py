"""Prepared radiographs of many callers in, one forward pass for all that wait.

One thread owns the engine. Whenever it is free it takes everything that is queued, up to the largest batch, and
hands each row back to its caller: no timer, no waiting for company.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from app.errors import EngineError, NotReadyError
from xray.predictor import Prediction, Predictor, Prepared

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One radiograph and the caller's promise."""

    prepared: Prepared
    result: "Future[Prediction]" = field(default_factory=Future)


class Batcher:
    """Runs a predictor's engine in one thread; `submit` may be called from any."""

    def __init__(self, predictor: Predictor, max_batch: int, on_batch: Callable[[int, float], None]) -> None:
        """`on_batch` is told, in the engine's thread, the size of each batch and the seconds it took."""
        self._predictor, self._max_batch, self._on_batch = predictor, max_batch, on_batch
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish what is queued, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def require_running(self) -> None:
        """Raises: NotReadyError: the engine's thread does not run."""
        if not self._thread.is_alive():
            raise NotReadyError("The engine is not running; try another replica.")

    def submit(self, prepared: Sequence[Prepared]) -> "list[Future[Prediction]]":
        """Queue the radiographs of one study.

        Raises:
            NotReadyError: the engine's thread does not run.
        """
        self.require_running()
        jobs = [Job(each) for each in prepared]
        for job in jobs:
            self._jobs.put(job)
        return [job.result for job in jobs]

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch, stopping = self._take_waiting(job)
            # A caller that hung up or came to its deadline has cancelled its future; it costs nothing more.
            wanted = [job for job in batch if job.result.set_running_or_notify_cancel()]
            if wanted:
                self._forward(wanted)
            if stopping:
                return

    def _take_waiting(self, first: Job) -> tuple[list[Job], bool]:
        """Everything queued behind the first job up to the largest batch, and whether to stop after it."""
        batch = [first]
        while len(batch) < self._max_batch:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return batch, False
            if job is None:
                return batch, True
            batch.append(job)
        return batch, False

    def _forward(self, batch: Sequence[Job]) -> None:
        started = time.perf_counter()
        try:
            output = self._predictor.engine.forward(np.stack([job.prepared.pixels_1SS for job in batch]))
            predictions = [self._predictor.read(output, row, job.prepared) for row, job in enumerate(batch)]
        except Exception:  # whatever the engine throws belongs to these callers, and the thread lives on
            logger.exception("The forward pass of %d radiographs failed.", len(batch))
            for job in batch:
                job.result.set_exception(EngineError("The network failed; this is our fault. Send the request again."))
            return
        self._on_batch(len(batch), time.perf_counter() - started)
        for job, prediction in zip(batch, predictions, strict=True):
            job.result.set_result(prediction)
