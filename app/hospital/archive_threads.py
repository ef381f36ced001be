"""Threads in which archives are asked, a few for each archive, so that a sick one keeps only its own busy.

The loop's default threads renew leases, read jobs and count them for /metrics; on two cores there are six of them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pacs.client.configuration import ArchiveConfig

if TYPE_CHECKING:
    from pacs.client.archive import Archive

THREADS_AN_ARCHIVE = 4
"""A worker needs one; the others stand in for those that an earlier attempt has not given back yet."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class OpenArchive:
    """A connection to an archive, and the threads to use it in."""

    archive: "Archive"
    pool: ThreadPoolExecutor

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that asks the archive, in one of its threads."""
        call = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.pool, call)


class ArchiveThreads:
    """The pools of all archives; each is made when it is first needed."""

    def __init__(self) -> None:
        self._pools: dict[str, ThreadPoolExecutor] = {}

    @asynccontextmanager
    async def connected(self, name: str, config: ArchiveConfig) -> AsyncIterator[OpenArchive]:
        """Connect to an archive for the length of the block; what its threads wait for then ends at once."""
        pool = self._pools.get(name)
        if pool is None:
            pool = self._pools[name] = ThreadPoolExecutor(THREADS_AN_ARCHIVE, f"archive-{name}")
        archive = await asyncio.get_running_loop().run_in_executor(pool, _connect, name, config)
        try:
            yield OpenArchive(archive, pool)
        finally:
            archive.close()

    def close(self) -> None:
        """Begin nothing more."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)


def _connect(name: str, config: ArchiveConfig) -> "Archive":
    from pacs.client.archive import Archive  # it takes a second, and most replicas never need it

    return Archive(name, config)
