"""What connects a replica to a hospital: the jobs on their way, who may be in them, and where their results go."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from app.errors import NotConfiguredError, NotReadyError, OutOfRangeError
from app.hospital.archive_threads import ArchiveThreads, OpenArchive
from app.settings import Settings
from pacs.client.configuration import ArchiveConfig, read_archives
from pacs.errors import ConfigurationError, PacsError
from pacs.instance import Instance
from pacs.queue.errors import InstanceRefusedError, OtherContentError
from pacs.queue.job import Arrival, Job, QueueCounts, Settling, Source
from xray.errors import InputError
from xray.images.dicom.tags import Identity
from xray.images.radiograph import Radiograph

if TYPE_CHECKING:
    from pacs.queue.jobs import Jobs

logger = logging.getLogger(__name__)


Decode = Callable[[bytes], Awaitable[Radiograph]]


@dataclass
class Worker:
    """How the task that works on jobs is; `fault` says what ended it, until it has begun again."""

    fault: str | None = None


@dataclass(frozen=True)
class Hospital:
    """The jobs of this replica, or of several that share a database.

    Attributes:
        archives: by the name that the configuration gives them.
        destination: name of the archive that results go to; None keeps them here.
        settle: pause after a study's latest radiograph, in which more of it may come.
        arrived: set when there may be something to do.
        longest_settle: after a study's first radiograph, whatever comes.
    """

    jobs: "Jobs"
    archives: Mapping[str, ArchiveConfig]
    destination: str | None
    settle: timedelta
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    threads: ArchiveThreads = field(default_factory=ArchiveThreads)
    longest_settle: timedelta = timedelta(seconds=60)
    worker: Worker = field(default_factory=Worker)

    async def receive(self, checkpoint: str, identity: Identity, data: bytes, source: Source, decode: Decode) -> Job:
        """Put a radiograph into its study's job; it is safe when this returns.

        `decode` is asked where another file of the same UID is there: the same image in another transfer syntax, or
        with other tags around it, is no other content.

        Raises:
            OtherPatientError: the study is another patient's.
            OtherContentError: an instance of that UID shows another image.
            SpoolFullError: as much is on its way as may be.
        """
        instance = Instance(identity.series_uid, identity.instance_uid, identity.sop_class_uid, data)
        arrival = Arrival(identity.study_uid, identity.patient, checkpoint, self.destination, source)
        settling = Settling(self.settle, self.longest_settle)
        try:
            try:
                job = await asyncio.to_thread(self.jobs.intake.receive, arrival, instance, settling)
            except OtherContentError:
                before = await asyncio.to_thread(
                    self.jobs.repository.stored_file, identity.study_uid, identity.instance_uid
                )
                if before is None or not await shows_the_same(before, data, decode):
                    raise
                job = await asyncio.to_thread(
                    self.jobs.intake.receive, arrival, replace(instance, data=before), settling
                )
        except InstanceRefusedError as error:
            job_id = await asyncio.to_thread(self.jobs.intake.count_refusal, identity.study_uid, error.reason)
            logger.warning("An instance for the study of job %s was refused: %s.", job_id, error.reason)
            raise
        self.arrived.set()
        return job

    async def leave_alone(self, reasons: Mapping[str, int]) -> None:
        """Count instances that are accepted and not analyzed; nobody is refused because that cannot be done."""
        for reason, instances in reasons.items():
            try:
                await asyncio.to_thread(self.jobs.intake.count_left_alone, reason, instances)
            except PacsError as error:
                logger.error("%d instances that are left alone (%s) were not counted: %s", instances, reason, error)

    def require_working(self) -> None:
        """Raises: NotReadyError: nobody works on the jobs of this replica."""
        if self.worker.fault is not None:
            raise NotReadyError(f"{self.worker.fault} Try another replica.")

    async def counts(self) -> QueueCounts | None:
        """How many studies and instances are where; None, and a line in the log, where the database does not answer."""
        try:
            return QueueCounts(
                await asyncio.to_thread(self.jobs.repository.counts),
                await asyncio.to_thread(self.jobs.repository.overdue),
                await asyncio.to_thread(self.jobs.repository.left_alone),
                await asyncio.to_thread(self.jobs.repository.refusals),
            )
        except PacsError as error:
            logger.error("The jobs cannot be counted: %s", error)
            return None

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


async def shows_the_same(one: bytes, other: bytes, decode: Decode) -> bool:
    """Whether two files hold the same image of the same side and view; what cannot be read is like nothing."""
    try:
        first, second = await decode(one), await decode(other)
    except InputError:
        return False
    same_facts = (first.dicom, first.content, first.pixel_aspect) == (second.dicom, second.content, second.pixel_aspect)
    return same_facts and np.array_equal(first.pixels, second.pixels)


def load_hospital(settings: Settings) -> Hospital | None:
    """Open the jobs and read the archives that the settings name; None where they name no jobs.

    Raises:
        PacsError: the jobs cannot be opened, or the archives' file is wrong.
    """
    archives = read_archives(settings.archives) if settings.archives else {}
    if settings.jobs is None:
        return None
    from pacs.queue.encryption import Cipher
    from pacs.queue.jobs import Jobs

    if settings.results_to is not None and settings.results_to not in archives:
        raise ConfigurationError(
            f"OSTEON_RESULTS_TO is {settings.results_to}, and OSTEON_ARCHIVES names no such archive."
        )
    jobs = Jobs(settings.jobs, Cipher.from_key_file(settings.jobs_key), settings.max_spool_bytes)
    return Hospital(
        jobs,
        archives,
        settings.results_to,
        timedelta(seconds=settings.settle_seconds),
        longest_settle=timedelta(seconds=settings.max_settle_seconds),
    )


def required(hospital: Hospital | None) -> Hospital:
    """Raises NotConfiguredError where there is none."""
    if hospital is None:
        raise NotConfiguredError("This replica takes no studies: set OSTEON_JOBS to a database, and start it again.")
    return hospital
