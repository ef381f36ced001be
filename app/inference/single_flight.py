"""Runs a task once for all callers that request the same result at the same time."""

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
    """Tasks in progress that callers share, by key. A task is canceled only when all of its callers have been canceled.

    Use it on the event loop only.
    """

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[ResultT]] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Return whether a task for this key is in progress."""
        return key in self._flights

    async def do(self, key: Hashable, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Run `work`, or join the task in progress for this key; all callers get the same result or error."""
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
