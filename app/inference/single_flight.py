"""Runs one piece of work for all callers that ask for the same thing at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

ResultT = TypeVar("ResultT")


@dataclass
class _Flight(Generic[ResultT]):
    task: "asyncio.Future[ResultT]"
    callers: int = 0


class SingleFlight(Generic[ResultT]):
    """Work in progress, by key. It is canceled only when its last caller has been canceled.

    Use it on the event loop only.
    """

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[ResultT]] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether work for this key is in progress."""
        return key in self._flights

    async def do(self, key: Hashable, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Return the result of `work`, or of the work for this key in progress; every caller gets the same error."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.ensure_future(work()))
        flight.callers += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.callers -= 1
            if flight.task.done() or not flight.callers:
                flight.task.cancel()
                if self._flights.get(key) is flight:
                    del self._flights[key]
