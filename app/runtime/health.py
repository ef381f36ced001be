"""Health of a replica: readiness and liveness checks, and a watchdog that ends a process that cannot recover.

A hung engine never releases its thread, so the watchdog ends the process and a supervisor starts a new one. Only time
in which the process could run counts (`app.inference.clock`): a replica that is paused or starved of CPU is not ready,
but it is not ended.
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
from app.inference.clock import MAX_TICK_SECONDS, ProcessClock
from app.inference.model_bundle import CANARY, CANARY_NEIGHBORS, canary_answer
from app.inference.predictor_service import PredictorService
from app.settings import Settings

SILENT_SECONDS = 2.5
"""Seconds without progress of the engine after which the replica is not ready, also when paused or starved of CPU."""
SILENT_BATCHES = 3
DEAD_BATCHES = 8
"""Multiples of the predicted batch time; they apply instead of the limits in seconds where they are longer."""
EXIT_STATUS = os.EX_SOFTWARE
"""Exit code of a process that the watchdog ends."""
POLL_SECONDS = 0.25
"""Interval between two checks of the engine or the event loop, in seconds."""
EXIT_GRACE_SECONDS = 1.0
"""Time to send the last replies before the process ends, in seconds."""
CANARY_SECONDS = 10.0
"""Time without a reply to a canary after which the replica is not ready, in seconds."""
DEAD_CANARIES = 3
"""Consecutive canary failures after which the process ends."""
MAX_BUSY_CORES = 4
"""Maximum number of cores that native code may use in normal operation while it blocks the interpreter."""

logger = logging.getLogger(__name__)

end_process: Callable[[], None] = partial(os._exit, EXIT_STATUS)


@dataclass
class ReplicaHealth:
    """State of a replica's health, behind the liveness and readiness probes.

    Attributes:
        draining: whether the replica is shutting down: it answers accepted requests and is not ready for more.
        canary_failure: why the latest canary failed; None if it had the expected result.
        canary_time: monotonic time of the latest expected result, in seconds.
    """

    settings: Settings
    batcher: Batcher
    admission: Admission
    draining: bool = False
    canary_failure: str | None = None
    canary_time: float = field(default_factory=time.monotonic)

    @property
    def canary_age(self) -> float:
        """Seconds since the replica's canary last had the expected result."""
        return time.monotonic() - self.canary_time

    def record_canary(self, failure: str | None) -> None:
        """Store the outcome of a canary in the replica's health; `failure` is None if it had the expected result."""
        self.canary_failure = failure
        if failure is None:
            self.canary_time = time.monotonic()

    def fatal_fault(self) -> str | None:
        """Return why only a restart can restore the replica's health; None if the replica is alive."""
        if fault := self.batcher.fault():
            return fault
        idle, limit = self.batcher.idle_seconds, self.settings.engine_dead_seconds
        if idle > max(limit, DEAD_BATCHES * self._batch_seconds):
            return f"The engine has made no progress in {idle:.0f} s in which the process could run."
        return None

    def require_live(self) -> None:
        """Check that nothing is wrong with this replica's health that only a restart can repair.

        Raises:
            NotReadyError: the engine has stopped or hangs, and only a restart helps.
        """
        _require_none(self.fatal_fault)

    def require_ready(self) -> None:
        """Check this replica's health: engine, canary, queue and draining.

        Raises:
            NotReadyError: the replica should not get new requests at the moment.
        """
        _require_none(
            self.fatal_fault,
            self._silence_fault,
            self._draining_fault,
            self._queue_age_fault,
            lambda: self.canary_failure,
        )

    @property
    def _batch_seconds(self) -> float:
        return self.admission.latency.batch_seconds(self.settings.max_batch)

    def _silence_fault(self) -> str | None:
        silent = self.batcher.silent_seconds
        limit = max(SILENT_SECONDS, SILENT_BATCHES * self._batch_seconds)
        return f"The engine has made no progress for {silent:.1f} s." if silent > limit else None

    def _draining_fault(self) -> str | None:
        return "This replica is shutting down." if self.draining else None

    def _queue_age_fault(self) -> str | None:
        oldest = self.batcher.oldest_seconds
        return f"A radiograph has waited for {oldest:.1f} s." if oldest > self.settings.deadline_seconds else None


def _require_none(*faults: Callable[[], str | None]) -> None:
    for fault in faults:
        if (text := fault()) is not None:
            raise NotReadyError(f"{text} Try another replica.")


async def watch_engine(predictor: PredictorService, health: ReplicaHealth, give_up: Callable[[], None]) -> None:
    """Watch the engine until only a restart helps, then fail all waiting requests and call `give_up`."""
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
    """Ends the process when its event loop or its interpreter is blocked, and logs the traceback of every thread.

    The clock's thread detects a blocked event loop. A native call that holds the interpreter's lock blocks that thread
    too; then a kernel timer on CPU time expires, and its signal handler ends the process without running any Python.
    """

    def __init__(self, clock: ProcessClock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self._last_beat = clock()

    async def beat(self) -> None:
        """Record heartbeats of the event loop for the watchdog until canceled."""
        while True:
            self._last_beat = self._clock()
            await asyncio.sleep(POLL_SECONDS)

    def arm(self) -> None:
        """Start the watchdog's kernel timer, which ends the process with the number of SIGPROF as exit code."""
        libc = ctypes.CDLL(None)
        libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        # The default action of the signal does not end process 1 of a container, so the handler calls _exit.
        libc.signal(signal.SIGPROF, ctypes.cast(libc._exit, ctypes.c_void_p))
        faulthandler.register(signal.SIGPROF, all_threads=True, chain=True)
        self._restart_timer()  # the interpreter may be blocked before the first tick

    def check(self) -> None:
        """End the process if the event loop is blocked; the clock calls this at every tick, in its own thread."""
        self._restart_timer()
        if self._clock() - self._last_beat > self._seconds + MAX_TICK_SECONDS:  # one tick can add MAX_TICK_SECONDS
            faulthandler.dump_traceback(all_threads=True)
            end_process()

    def disarm(self) -> None:
        """Stop the watchdog's kernel timer."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _restart_timer(self) -> None:
        cores = min(len(os.sched_getaffinity(0)), MAX_BUSY_CORES)
        signal.setitimer(signal.ITIMER_PROF, self._seconds * cores)


async def send_canary(predictor: PredictorService) -> str | None:
    """Check the replica's health by a canary through decoding, forward pass and search; return the fault, or None."""
    bundle = predictor.bundle
    try:
        prediction = await predictor.cache.predict_uncached(bundle, CANARY.read_bytes())
        study = bundle.predictor.predict_study([prediction])
        found = await predictor.off_loop(bundle.gallery.search, study.embedding_D, CANARY_NEIGHBORS)
    except Exception:  # any error here means that requests fail as well
        logger.exception("The canary failed.")
        return "The canary failed."
    if not canary_answer(study, found).agrees_with(bundle.expected_canary):
        return "The canary's result differs from the first one."
    return None


async def _send_canaries(predictor: PredictorService, health: ReplicaHealth) -> None:
    """Send canaries until `DEAD_CANARIES` fail in a row, or one takes longer than `engine_dead_seconds`."""
    dead = 0
    while dead < DEAD_CANARIES:
        await asyncio.sleep(predictor.settings.canary_seconds)
        canary = asyncio.create_task(send_canary(predictor))
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
    """Wait for a canary, record if it is late, and return whether it finished within `engine_dead_seconds`."""
    sent = predictor.clock()
    await asyncio.wait({canary}, timeout=CANARY_SECONDS)
    while not canary.done() and predictor.clock() - sent < predictor.settings.engine_dead_seconds:
        health.record_canary(f"The canary had no result within {CANARY_SECONDS:g} s.")
        await asyncio.wait({canary}, timeout=POLL_SECONDS)
    return canary.done()
