"""Threads for requests to archives: a few for each archive, so that a slow archive blocks only its own.

The event loop's default threads also renew leases, read jobs and count them for /metrics; with two cores there are six.
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

THREADS_PER_ARCHIVE = 4
"""A worker needs one thread; the others replace threads that an earlier attempt still blocks."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class OpenArchive:
    """The threads of one archive, with the client whose requests run in them."""

    archive: "Archive"
    pool: ThreadPoolExecutor

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a blocking function in one of the archive's threads."""
        call = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.pool, call)


class ArchiveThreads:
    """The thread pools of all archives; each is created on first use."""

    def __init__(self) -> None:
        self._pools: dict[str, ThreadPoolExecutor] = {}

    @asynccontextmanager
    async def connect(self, name: str, config: ArchiveConfig) -> AsyncIterator[OpenArchive]:
        """Connect to an archive in its threads for the duration of the block; its end aborts requests in progress."""
        pool = self._pools.get(name)
        if pool is None:
            pool = self._pools[name] = ThreadPoolExecutor(THREADS_PER_ARCHIVE, f"archive-{name}")
        archive = await asyncio.get_running_loop().run_in_executor(pool, _create_client, name, config)
        try:
            yield OpenArchive(archive, pool)
        finally:
            archive.close()

    def close(self) -> None:
        """Cancel the requests to archives that wait for a thread, and accept no more; running ones finish."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)


def _create_client(name: str, config: ArchiveConfig) -> "Archive":
    from pacs.client.archive import Archive  # imported here because it takes a second and most replicas do not need it

    return Archive(name, config)
