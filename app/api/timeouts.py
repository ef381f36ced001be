"""Context managers that end a request early: at its deadline, or when its client disconnects."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.errors import DeadlineError


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Limit the time of a request, from reading its body to its reply; after that its queued work is dropped.

    Args:
        seconds: time that the block may take.

    Raises:
        DeadlineError: the block took longer.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise DeadlineError(
            f"There was no answer within {seconds:g} s of the request's head; send the body without pauses, or send "
            "the request again, to another replica if there is one."
        ) from error


@asynccontextmanager
async def cancel_on_disconnect(request: Request) -> AsyncIterator[Callable[[], None]]:
    """End the block of a request early, as a timeout does, when the client disconnects.

    The context manager yields a function to call after the body is read; a disconnect ends the block only from then on.

    Raises:
        ClientDisconnect: the client has disconnected.
    """
    watch: asyncio.Task[None] | None = None

    async def end_when_gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        scope.reschedule(asyncio.get_running_loop().time())

    def start() -> None:
        nonlocal watch
        watch = asyncio.create_task(end_when_gone())

    try:
        async with asyncio.timeout(None) as scope:
            yield start
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise ClientDisconnect from error
    finally:
        if watch is not None:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
