"""Connects a replica to a hospital: adds radiographs to the job queue and gives access to the archives."""

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
class WorkerState:
    """What the gateway knows of the task that processes jobs; `fault` says what ended it and is None while it runs."""

    fault: str | None = None


@dataclass(frozen=True)
class Hospital:
    """The gateway to a hospital: this replica's job queue, which other replicas may share, and the archives.

    Attributes:
        archives: the archives, by their name in the configuration.
        destination: name of the archive that gets the results; None keeps them here.
        settle: how long a job waits for more after the latest radiograph of its study.
        arrived: set when a job may be due.
        max_settle: longest time that a job waits after the first radiograph of its study.
    """

    jobs: "Jobs"
    archives: Mapping[str, ArchiveConfig]
    destination: str | None
    settle: timedelta
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    threads: ArchiveThreads = field(default_factory=ArchiveThreads)
    max_settle: timedelta = timedelta(seconds=60)
    worker: WorkerState = field(default_factory=WorkerState)

    async def receive(self, checkpoint: str, identity: Identity, data: bytes, source: Source, decode: Decode) -> Job:
        """Take a radiograph from any sender into the hospital's queue. It is safe on disk when this returns.

        Args:
            decode: decodes a file, to compare it with an earlier one of the same UID: the same image in another
                transfer syntax, or with other attributes, counts as the same content.

        Raises:
            OtherPatientError: the study belongs to another patient.
            OtherContentError: an earlier instance with that UID shows another image.
            SpoolFullError: the spool has reached its limit.
        """
        instance = Instance(identity.series_uid, identity.instance_uid, identity.sop_class_uid, data)
        arrival = Arrival(identity.study_uid, identity.patient, checkpoint, self.destination, source)
        settling = Settling(self.settle, self.max_settle)
        try:
            try:
                job = await asyncio.to_thread(self.jobs.intake.receive, arrival, instance, settling)
            except OtherContentError:
                before = await asyncio.to_thread(
                    self.jobs.repository.stored_file, identity.study_uid, identity.instance_uid
                )
                if before is None or not await is_same_image(before, data, decode):
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
        """Count the hospital's instances that are accepted but not analyzed; a failure to count them is only logged."""
        for reason, instances in reasons.items():
            try:
                await asyncio.to_thread(self.jobs.intake.count_left_alone, reason, instances)
            except PacsError as error:
                logger.error(
                    "%d instances that are not analyzed (%s) could not be counted: %s", instances, reason, error
                )

    def require_working(self) -> None:
        """Check that the hospital's worker runs.

        Raises:
            NotReadyError: the worker has ended and has not restarted yet.
        """
        if self.worker.fault is not None:
            raise NotReadyError(f"{self.worker.fault} Try another replica.")

    async def counts(self) -> QueueCounts | None:
        """Count the hospital's jobs and instances by state; None if the database does not respond, which is logged."""
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
        """Check that the hospital's configuration has an archive of that name.

        Raises:
            OutOfRangeError: there is no such archive.
        """
        if name not in self.archives:
            known = ", ".join(sorted(self.archives)) or "none"
            raise OutOfRangeError(f"There is no archive with that name; the configuration has: {known}.")

    @asynccontextmanager
    async def connect(self, name: str) -> AsyncIterator[OpenArchive]:
        """Connect to one of the hospital's archives for the duration of the block; its end aborts requests in progress.

        Raises:
            OutOfRangeError: no archive has that name.
            ConfigurationError: its certificates cannot be used.
        """
        self.require_archive(name)
        async with self.threads.connect(name, self.archives[name]) as archive:
            yield archive


async def is_same_image(one: bytes, other: bytes, decode: Decode) -> bool:
    """Return whether a radiograph that the hospital's gateway gets again has the same image, side and view as before.

    Return False if one of its two files cannot be read.
    """
    try:
        first, second = await decode(one), await decode(other)
    except InputError:
        return False
    same_facts = (first.dicom, first.content, first.pixel_aspect) == (second.dicom, second.content, second.pixel_aspect)
    return same_facts and np.array_equal(first.pixels, second.pixels)


def load_hospital(settings: Settings) -> Hospital | None:
    """Open the hospital's job queue and read the archives that the settings name; None if they name no queue.

    Raises:
        PacsError: the queue cannot be opened, or the archives' configuration is wrong.
    """
    archives = read_archives(settings.archives) if settings.archives else {}
    if settings.jobs is None:
        return None
    from pacs.queue.encryption import Cipher
    from pacs.queue.jobs import Jobs

    if settings.results_to is not None and settings.results_to not in archives:
        raise ConfigurationError(
            f"OSTEON_RESULTS_TO is {settings.results_to}, but the file in OSTEON_ARCHIVES has no such archive."
        )
    jobs = Jobs(settings.jobs, Cipher.from_key_file(settings.jobs_key), settings.max_spool_bytes)
    return Hospital(
        jobs,
        archives,
        settings.results_to,
        timedelta(seconds=settings.settle_seconds),
        max_settle=timedelta(seconds=settings.max_settle_seconds),
    )


def require_configured(hospital: Hospital | None) -> Hospital:
    """Return the gateway to the hospital that `load_hospital` opened, or refuse because none is configured.

    Raises:
        NotConfiguredError: no hospital is configured.
    """
    if hospital is None:
        raise NotConfiguredError("This replica accepts no studies: set OSTEON_JOBS to a database and restart it.")
    return hospital
