"""What connects a replica to a hospital's archives: the jobs on their way, and where their results go."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from app.archive_threads import ArchiveThreads, OpenArchive
from app.errors import NotConfiguredError, OutOfRangeError
from app.metrics import Metrics
from app.settings import Settings
from pacs.configuration import ArchiveConfig, read_archives
from pacs.errors import ConfigurationError, PacsError
from pacs.job import Instance, Job, Source
from xray.dicom_tags import Identity

if TYPE_CHECKING:
    from pacs.jobs import Jobs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hospital:
    """The jobs of this replica, or of several that share a database.

    Attributes:
        archives: by the name that the configuration gives them.
        destination: name of the archive that results go to; None keeps them here.
        settle: pause after a study's latest radiograph, in which more of it may come.
        arrived: set when there may be something to do.
    """

    jobs: "Jobs"
    archives: Mapping[str, ArchiveConfig]
    destination: str | None
    settle: timedelta
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    threads: ArchiveThreads = field(default_factory=ArchiveThreads)

    async def receive(self, checkpoint: str, identity: Identity, data: bytes, source: Source) -> Job:
        """Put a radiograph into its study's job; it is safe when this returns.

        Raises:
            SpoolFullError: as much is on its way as may be.
        """
        instance = Instance(identity.series_uid, identity.instance_uid, identity.sop_class_uid, data)
        job = await asyncio.to_thread(
            self.jobs.receive,
            identity.study_uid,
            checkpoint,
            self.destination,
            source,
            instance,
            self.settle,
        )
        self.arrived.set()
        return job

    async def leave_alone(self, reasons: Mapping[str, int]) -> None:
        """Count instances that are accepted and not analyzed; nobody is refused because that cannot be done."""
        for reason, instances in reasons.items():
            try:
                await asyncio.to_thread(self.jobs.leave_alone, reason, instances)
            except PacsError as error:
                logger.error("%d instances that are left alone (%s) were not counted: %s", instances, reason, error)

    async def measure(self, metrics: Metrics) -> None:
        """Count the jobs; where their database does not answer, nothing is known of them, and the log says why."""
        metrics.jobs.clear()
        metrics.left_alone.clear()
        metrics.overdue_jobs.set(math.nan)
        try:
            counts = await asyncio.to_thread(self.jobs.counts)
            overdue = await asyncio.to_thread(self.jobs.overdue)
            left_alone = await asyncio.to_thread(self.jobs.left_alone)
        except PacsError as error:
            logger.error("The jobs cannot be counted: %s", error)
            return
        for state, count in counts.items():
            metrics.jobs.labels(state).set(count)
        for reason, count in left_alone.items():
            metrics.left_alone.labels(reason).set(count)
        metrics.overdue_jobs.set(overdue.total_seconds())

    def require_archive(self, name: str) -> None:
        """Raises OutOfRangeError if no archive has that name."""
        if name not in self.archives:
            known = ", ".join(sorted(self.archives)) or "none"
            raise OutOfRangeError(f"There is no archive of that name; the configuration has: {known}.")

    @asynccontextmanager
    async def connected(self, name: str) -> AsyncIterator[OpenArchive]:
        """An archive that is asked in threads of its own; what they still wait for is ended with the block.

        Raises:
            OutOfRangeError: no archive has that name.
            ConfigurationError: its certificates cannot be used.
        """
        self.require_archive(name)
        async with self.threads.connected(name, self.archives[name]) as archive:
            yield archive


def load_hospital(settings: Settings) -> Hospital | None:
    """Open the jobs and read the archives that the settings name; None where they name no jobs.

    Raises:
        PacsError: the jobs cannot be opened, or the archives' file is wrong.
    """
    if settings.jobs is None:
        return None
    from pacs.jobs import Jobs
    from pacs.sealing import Seal

    archives = read_archives(settings.archives) if settings.archives else {}
    if settings.results_to is not None and settings.results_to not in archives:
        raise ConfigurationError(
            f"OSTEON_RESULTS_TO is {settings.results_to}, and OSTEON_ARCHIVES names no such archive."
        )
    jobs = Jobs(settings.jobs, Seal.of_file(settings.jobs_key), settings.max_spool_bytes)
    return Hospital(jobs, archives, settings.results_to, timedelta(seconds=settings.settle_seconds))


def required(hospital: Hospital | None) -> Hospital:
    """Raises NotConfiguredError where there is none."""
    if hospital is None:
        raise NotConfiguredError("This replica takes no studies: set OSTEON_JOBS to a database, and start it again.")
    return hospital
