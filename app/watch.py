"""What runs beside the requests: a look at the engine, a canary now and then, and the end of a process that is lost.

A hung engine holds its thread for ever, so the process ends without ceremony and its supervisor starts a new one.
"""

import asyncio
import faulthandler
import logging
import os
from collections.abc import Callable
from functools import partial

from app.generation import CANARY, CANARY_NEIGHBORS, canary_answer
from app.service import Service

EXIT_STATUS = os.EX_SOFTWARE
WATCH_SECONDS = 0.25
FAREWELL_SECONDS = 1.0
"""For the last replies and probes before the process ends."""
CANARY_SECONDS = 10.0
"""Within which the canary must have its answer."""
DEAD_CANARIES = 3
"""In a row, after which a new process is the only hope."""
LOOP_SECONDS = 15.0
"""After which an event loop that does not turn ends the process, by a timer that needs neither loop nor interpreter."""

logger = logging.getLogger(__name__)

end_process: Callable[[], None] = partial(os._exit, EXIT_STATUS)


async def watch(service: Service, give_up: Callable[[], None]) -> None:
    """Look at the engine until something is wrong with it that will not pass; then tell all who wait, and give up."""
    canaries = asyncio.create_task(_send_canaries(service))
    try:
        while (fault := service.vitals.engine_fault()) is None and not canaries.done():
            await asyncio.sleep(WATCH_SECONDS)
    finally:
        canaries.cancel()
    logger.critical("This process ends: %s", fault or service.vitals.canary_failure)
    service.batcher.abandon()
    await asyncio.sleep(FAREWELL_SECONDS)
    give_up()


async def end_with_the_loop() -> None:
    """Keep a timer wound that ends the process, with everybody's traceback, should the event loop stand still."""
    try:
        while True:
            faulthandler.dump_traceback_later(LOOP_SECONDS, exit=True)
            await asyncio.sleep(LOOP_SECONDS / 10)
    finally:
        faulthandler.cancel_dump_traceback_later()


async def canary_failure(service: Service) -> str | None:
    """Send the canary through decoding, forward pass and search; what went wrong, if anything did."""
    generation = service.generation
    try:
        async with asyncio.timeout(CANARY_SECONDS):
            prediction = await service.passes.anew(generation, CANARY.read_bytes())
            study = generation.predictor.judge([prediction])
            found = await service.off_loop(generation.gallery.search, study.embedding_D, CANARY_NEIGHBORS)
    except TimeoutError:
        return f"The canary had no answer within {CANARY_SECONDS:g} s."
    except Exception:  # whatever it is, this replica cannot answer
        logger.exception("The canary failed.")
        return "The canary failed."
    if not canary_answer(study, found).agrees_with(generation.known):
        return "The canary's answer is not the known one."
    return None


async def _send_canaries(service: Service) -> None:
    """Until too many in a row came to nothing."""
    dead = 0
    while dead < DEAD_CANARIES:
        await asyncio.sleep(service.settings.canary_seconds)
        failure = await canary_failure(service)
        service.vitals.canary_came(failure)
        dead = dead + 1 if failure else 0
