"""Equal questions in, one piece of work for all of them out."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

ResultT = TypeVar("ResultT")


@dataclass
class _Work(Generic[ResultT]):
    task: "asyncio.Future[ResultT]"
    waiting: int = 0


class Shared(Generic[ResultT]):
    """What is being made, by key; it is given up only when the last one who waits for it has gone.

    Touched on the event loop only.
    """

    def __init__(self) -> None:
        self._works: dict[Hashable, _Work[ResultT]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._works

    async def once(self, key: Hashable, make: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """The result of `make`, or of the one that runs for this key already; an error is everyone's."""
        work = self._works.get(key)
        if work is None:
            work = self._works[key] = _Work(asyncio.ensure_future(make()))
        work.waiting += 1
        try:
            return await asyncio.shield(work.task)
        finally:
            work.waiting -= 1
            if work.task.done() or not work.waiting:
                work.task.cancel()
                if self._works.get(key) is work:
                    del self._works[key]
