"""The radiographs of a study that an archive has, fetched one by one; what cannot be had is named and left out."""

import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from app.hospital.archive_threads import OpenArchive
from app.hospital.gateway import Hospital
from app.inference.predictor_service import PredictorService
from pacs.client.qido_json import InstanceReference
from pacs.errors import ArchiveRefusedError, ArchiveUnavailableError, PacsError, StudyMissingError, TooLargeError
from pacs.instance import Instance
from pacs.queue.job import Job
from xray.errors import InputError
from xray.images.patient_identity import Patient

logger = logging.getLogger(__name__)

ANOTHER_STUDY = "The archive gave a file of another study."
ANOTHER_INSTANCE = "The archive gave a file of another instance."


class NoneGivenError(PacsError):
    """An archive lists radiographs of a study and gives none of them; the cause says why."""


@dataclass(frozen=True)
class LeftOut:
    """A radiograph of a study that cannot be had, and why."""

    instance_uid: str
    reason: str


@dataclass(frozen=True)
class Fetched:
    """A radiograph as an archive gave it, and whose it is."""

    instance: Instance
    patient: Patient


async def fetched(
    service: PredictorService, hospital: Hospital, job: Job, archive_name: str
) -> AsyncGenerator[Fetched | LeftOut]:
    """The radiographs of a job's study, one in memory at a time.

    One that is refused, too large or damaged is left out, and the others go on. One that the archive does not give at
    the moment ends the attempt, and is left out in the last one.

    Raises:
        StudyMissingError: the archive does not have the study, or no longer has what it lists of it.
        NoneGivenError: it has radiographs of it and gives none of them.
        PacsError: it is away, or does not say what it has.
    """
    last_attempt = job.attempts >= service.settings.job_attempts
    given = 0
    failure: PacsError | None = None
    outcome: Fetched | LeftOut | None
    async with hospital.connected(archive_name) as archive:
        for reference in await archive.run(archive.archive.radiographs, job.study_uid):
            try:
                outcome = await _fetch(service, archive, reference)
                given += 1
            except (InputError, TooLargeError) as error:
                outcome = LeftOut(reference.instance_uid, str(error))
                given += 1
            except ArchiveUnavailableError as error:
                if not last_attempt:
                    raise
                failure, outcome = error, LeftOut(reference.instance_uid, str(error))
            except (ArchiveRefusedError, StudyMissingError) as error:
                failure, outcome = error, LeftOut(reference.instance_uid, str(error))
            if outcome is not None:
                yield outcome
    if failure is not None and not given:
        raise failure if isinstance(failure, StudyMissingError) else NoneGivenError(str(failure)) from failure


async def _fetch(
    service: PredictorService, archive: OpenArchive, reference: InstanceReference
) -> Fetched | LeftOut | None:
    """None for what turns out to be no radiograph: an archive need not tell what it lists, such as earlier results."""
    data = await archive.run(archive.archive.retrieve_instance, reference, service.settings.max_upload_bytes)
    identity = await service.passes.identify(data)
    if identity.study_uid != reference.study_uid:
        logger.warning("Archive %s gave a file of another study than it was asked for.", archive.archive.name)
        return LeftOut(reference.instance_uid, ANOTHER_STUDY)
    if identity.instance_uid != reference.instance_uid:
        return LeftOut(reference.instance_uid, ANOTHER_INSTANCE)
    if not identity.is_radiograph:
        return None
    instance = Instance(identity.series_uid, identity.instance_uid, identity.sop_class_uid, data)
    return Fetched(instance, identity.patient)
