"""Watches a running replica: the engine, the event loop, and a canary's answer. It ends a process that is lost.

A hung engine holds its thread for ever, so the process ends at once and its supervisor starts a new one. Only time in
which the process could run counts (`app.inference.clock`): a paused or starved replica is not ready, and goes on.
"""

import asyncio
import ctypes
import faulthandler
import logging
import os
import signal
from collections.abc import Callable
from functools import partial

from app.inference.clock import LATEST_SECONDS, OwnTime
from app.inference.model_bundle import CANARY, CANARY_NEIGHBORS, canary_answer
from app.inference.predictor_service import PredictorService
from app.runtime.health import Vitals

EXIT_STATUS = os.EX_SOFTWARE
WATCH_SECONDS = 0.25
FAREWELL_SECONDS = 1.0
"""For the last replies and probes before the process ends."""
CANARY_SECONDS = 10.0
"""Time without an answer to the canary after which the replica is not ready."""
DEAD_CANARIES = 3
"""Failures in a row, after which a new process is the only hope."""
MAX_CORES = 4
"""Processors that may be busy at once while the interpreter stands still for good reason."""

logger = logging.getLogger(__name__)

end_process: Callable[[], None] = partial(os._exit, EXIT_STATUS)


async def watch(service: PredictorService, vitals: Vitals, give_up: Callable[[], None]) -> None:
    """Look at the engine until something is wrong with it that will not pass; then tell all who wait, and give up."""
    canaries = asyncio.create_task(_send_canaries(service, vitals))
    try:
        while (fault := vitals.lost()) is None and not canaries.done():
            await asyncio.sleep(WATCH_SECONDS)
    finally:
        canaries.cancel()
    logger.critical("This process ends: %s", fault or vitals.canary_failure)
    service.batcher.abandon()
    await asyncio.sleep(FAREWELL_SECONDS)
    give_up()


class LoopWatch:
    """Ends the process, with every thread's traceback in the log, when its event loop or its interpreter stands still.

    The clock's thread sees a loop that does not turn. Where a call keeps that thread out too, as it holds the
    interpreter's lock, a timer of the kernel counts its processor time; what ends the process then needs no Python.
    """

    def __init__(self, clock: OwnTime, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self._beat = clock()

    async def beat(self) -> None:
        """Show, until cancelled, that the event loop turns."""
        while True:
            self._beat = self._clock()
            await asyncio.sleep(WATCH_SECONDS)

    def arm(self) -> None:
        """Let the kernel's timer, which runs from now on, end the process with the signal's number as its status."""
        libc = ctypes.CDLL(None)
        libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        # The signal's own action would not do: a container's first process is not ended by it.
        libc.signal(signal.SIGPROF, ctypes.cast(libc._exit, ctypes.c_void_p))
        faulthandler.register(signal.SIGPROF, all_threads=True, chain=True)
        self._wind()  # the first tick may never come

    def look(self) -> None:
        """Called at every tick of the clock, in its thread."""
        self._wind()
        if self._clock() - self._beat > self._seconds + LATEST_SECONDS:  # one tick may bring so much at once
            faulthandler.dump_traceback(all_threads=True)
            end_process()

    def disarm(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _wind(self) -> None:
        cores = min(len(os.sched_getaffinity(0)), MAX_CORES)
        signal.setitimer(signal.ITIMER_PROF, self._seconds * cores)


async def canary_failure(service: PredictorService) -> str | None:
    """Send the canary through decoding, forward pass and search; what went wrong, if anything did."""
    generation = service.generation
    try:
        prediction = await service.passes.anew(generation, CANARY.read_bytes())
        study = generation.predictor.judge([prediction])
        found = await service.off_loop(generation.gallery.search, study.embedding_D, CANARY_NEIGHBORS)
    except Exception:  # whatever it is, this replica cannot answer
        logger.exception("The canary failed.")
        return "The canary failed."
    if not canary_answer(study, found).agrees_with(generation.known):
        return "The canary's answer is not the known one."
    return None


async def _send_canaries(service: PredictorService, vitals: Vitals) -> None:
    """Until too many in a row came to nothing, or one has no answer for too long."""
    dead = 0
    while dead < DEAD_CANARIES:
        await asyncio.sleep(service.settings.canary_seconds)
        canary = asyncio.create_task(canary_failure(service))
        try:
            if not await _answered(canary, service, vitals):
                return
        finally:
            canary.cancel()
        vitals.canary_came(canary.result())
        dead = dead + 1 if canary.result() else 0


async def _answered(canary: asyncio.Task[str | None], service: PredictorService, vitals: Vitals) -> bool:
    """Wait for a canary as long as the process could have answered; say meanwhile that it is late."""
    sent = service.clock()
    await asyncio.wait({canary}, timeout=CANARY_SECONDS)
    while not canary.done() and service.clock() - sent < service.settings.engine_dead_seconds:
        vitals.canary_came(f"The canary had no answer within {CANARY_SECONDS:g} s.")
        await asyncio.wait({canary}, timeout=WATCH_SECONDS)
    return canary.done()
