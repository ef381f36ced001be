"""Health of a replica: readiness and liveness checks, and a watchdog that ends a process that cannot recover.

A hung engine never releases its thread, so the watchdog ends the process and the supervisor starts a new one. Only time
in which the process could run counts (`app.inference.clock`): a paused or starved replica is not ready, but lives on.
"""

import asyncio
import ctypes
import faulthandler
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from app.errors import NotReadyError
from app.inference.admission import Admission
from app.inference.batcher import Batcher
from app.inference.clock import LATEST_SECONDS, OwnTime
from app.inference.model_bundle import CANARY, CANARY_NEIGHBORS, canary_answer
from app.inference.predictor_service import PredictorService
from app.settings import Settings

SILENT_SECONDS = 2.5
"""Without a sign of life of the engine, after which a replica is not ready; a paused or starved one is not either."""
SILENT_BATCHES = 3
DEAD_BATCHES = 8
"""A batch takes longer than these limits on a machine whose latest ones took so many times less."""
EXIT_STATUS = os.EX_SOFTWARE
POLL_SECONDS = 0.25
EXIT_GRACE_SECONDS = 1.0
"""For the last replies and probes before the process ends."""
CANARY_SECONDS = 10.0
"""Time without an answer to the canary after which the replica is not ready."""
DEAD_CANARIES = 3
"""Failures in a row, after which a new process is the only hope."""
MAX_BUSY_CORES = 4
"""Processors that may be busy at once while the interpreter stands still for good reason."""

logger = logging.getLogger(__name__)

end_process: Callable[[], None] = partial(os._exit, EXIT_STATUS)


@dataclass
class ReplicaHealth:
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

    def record_canary(self, failure: str | None) -> None:
        self.canary_failure = failure
        if failure is None:
            self.canary_time = time.monotonic()

    def fatal_fault(self) -> str | None:
        """Why only a new process will help, if that is so."""
        if fault := self.batcher.fault():
            return fault
        idle, limit = self.batcher.idle_seconds, self.settings.engine_dead_seconds
        if idle > max(limit, DEAD_BATCHES * self._batch_seconds):
            return f"The engine has given no sign of life in {idle:.0f} s that the process could run."
        return None

    def require_live(self) -> None:
        """Raises: NotReadyError: the engine is dead or hangs, and only a new process will help."""
        _require_none(self.fatal_fault)

    def require_ready(self) -> None:
        """Raises: NotReadyError: a radiograph that comes now is better sent elsewhere."""
        _require_none(
            self.fatal_fault,
            self._silence_fault,
            self._draining_fault,
            self._queue_age_fault,
            lambda: self.canary_failure,
        )

    @property
    def _batch_seconds(self) -> float:
        return self.admission.pace.batch_seconds(self.settings.max_batch)

    def _silence_fault(self) -> str | None:
        silent = self.batcher.silent_seconds
        patience = max(SILENT_SECONDS, SILENT_BATCHES * self._batch_seconds)
        return f"The engine has given no sign of life for {silent:.1f} s." if silent > patience else None

    def _draining_fault(self) -> str | None:
        return "This replica was told to stop." if self.draining else None

    def _queue_age_fault(self) -> str | None:
        oldest = self.batcher.oldest_seconds
        return f"A radiograph has waited for {oldest:.1f} s." if oldest > self.settings.deadline_seconds else None


def _require_none(*faults: Callable[[], str | None]) -> None:
    for fault in faults:
        if (text := fault()) is not None:
            raise NotReadyError(f"{text} Try another replica.")


async def watch_engine(predictor: PredictorService, health: ReplicaHealth, give_up: Callable[[], None]) -> None:
    """Look at the engine until something is wrong with it that will not pass; then tell all who wait, and give up."""
    canaries = asyncio.create_task(_send_canaries(predictor, health))
    try:
        while (fault := health.fatal_fault()) is None and not canaries.done():
            await asyncio.sleep(POLL_SECONDS)
    finally:
        canaries.cancel()
    logger.critical("This process ends: %s", fault or health.canary_failure)
    predictor.batcher.abandon()
    await asyncio.sleep(EXIT_GRACE_SECONDS)
    give_up()


class LoopWatchdog:
    """Ends the process, with every thread's traceback in the log, when its event loop or its interpreter stands still.

    The clock's thread sees a loop that does not turn. Where a call keeps that thread out too, as it holds the
    interpreter's lock, a timer of the kernel counts its processor time; what ends the process then needs no Python.
    """

    def __init__(self, clock: OwnTime, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self._last_beat = clock()

    async def beat(self) -> None:
        """Show, until cancelled, that the event loop turns."""
        while True:
            self._last_beat = self._clock()
            await asyncio.sleep(POLL_SECONDS)

    def arm(self) -> None:
        """Let the kernel's timer, which runs from now on, end the process with the signal's number as its status."""
        libc = ctypes.CDLL(None)
        libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        # The signal's own action would not do: a container's first process is not ended by it.
        libc.signal(signal.SIGPROF, ctypes.cast(libc._exit, ctypes.c_void_p))
        faulthandler.register(signal.SIGPROF, all_threads=True, chain=True)
        self._restart_timer()  # the first tick may never come

    def check(self) -> None:
        """Called at every tick of the clock, in its thread."""
        self._restart_timer()
        if self._clock() - self._last_beat > self._seconds + LATEST_SECONDS:  # one tick may bring so much at once
            faulthandler.dump_traceback(all_threads=True)
            end_process()

    def disarm(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _restart_timer(self) -> None:
        cores = min(len(os.sched_getaffinity(0)), MAX_BUSY_CORES)
        signal.setitimer(signal.ITIMER_PROF, self._seconds * cores)


async def canary_failure(predictor: PredictorService) -> str | None:
    """Send the canary through decoding, forward pass and search; what went wrong, if anything did."""
    generation = predictor.generation
    try:
        prediction = await predictor.passes.anew(generation, CANARY.read_bytes())
        study = generation.predictor.judge([prediction])
        found = await predictor.off_loop(generation.gallery.search, study.embedding_D, CANARY_NEIGHBORS)
    except Exception:  # whatever it is, this replica cannot answer
        logger.exception("The canary failed.")
        return "The canary failed."
    if not canary_answer(study, found).agrees_with(generation.known):
        return "The canary's answer is not the known one."
    return None


async def _send_canaries(predictor: PredictorService, health: ReplicaHealth) -> None:
    """Until too many in a row came to nothing, or one has no answer for too long."""
    dead = 0
    while dead < DEAD_CANARIES:
        await asyncio.sleep(predictor.settings.canary_seconds)
        canary = asyncio.create_task(canary_failure(predictor))
        try:
            if not await _wait_for_canary(canary, predictor, health):
                return
        finally:
            canary.cancel()
        health.record_canary(canary.result())
        dead = dead + 1 if canary.result() else 0


async def _wait_for_canary(
    canary: asyncio.Task[str | None], predictor: PredictorService, health: ReplicaHealth
) -> bool:
    """Wait for a canary as long as the process could have answered; say meanwhile that it is late."""
    sent = predictor.clock()
    await asyncio.wait({canary}, timeout=CANARY_SECONDS)
    while not canary.done() and predictor.clock() - sent < predictor.settings.engine_dead_seconds:
        health.record_canary(f"The canary had no answer within {CANARY_SECONDS:g} s.")
        await asyncio.wait({canary}, timeout=POLL_SECONDS)
    return canary.done()
