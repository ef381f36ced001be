"""Fetches the radiographs of a study from an archive, one by one, and names the ones that it cannot get."""

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

OTHER_STUDY = "The archive returned a file of another study."
OTHER_INSTANCE = "The archive returned a file of another instance."


class NothingRetrievedError(PacsError):
    """The fetch for a hospital's job got no radiograph: the archive lists some but returns none; the cause says why."""


@dataclass(frozen=True)
class SkippedInstance:
    """A radiograph that is left out when a job's study is fetched from an archive, and the reason."""

    instance_uid: str
    reason: str


@dataclass(frozen=True)
class FetchedRadiograph:
    """A radiograph that was fetched from an archive for a job of the hospital, and its patient."""

    instance: Instance
    patient: Patient


async def fetch_radiographs(
    predictor: PredictorService, hospital: Hospital, job: Job, archive_name: str
) -> AsyncGenerator[FetchedRadiograph | SkippedInstance]:
    """Fetch the radiographs of a job's study from an archive and yield them, with one in memory at a time.

    A radiograph that the archive refuses, or that is too large or damaged, is skipped. If the archive cannot return a
    radiograph at the moment, the attempt ends; the last attempt skips the radiograph instead.

    Raises:
        StudyMissingError: the archive does not have the study, or no longer has the instances that it lists.
        NothingRetrievedError: the archive lists radiographs but returns none of them.
        PacsError: the archive is unavailable, or does not list the study.
    """
    is_last_attempt = job.attempts >= predictor.settings.job_attempts
    received = 0
    failure: PacsError | None = None
    outcome: FetchedRadiograph | SkippedInstance | None
    async with hospital.connect(archive_name) as archive:
        for reference in await archive.run(archive.archive.radiographs, job.study_uid):
            try:
                outcome = await _fetch(predictor, archive, reference)
                received += 1
            except (InputError, TooLargeError) as error:
                outcome = SkippedInstance(reference.instance_uid, str(error))
                received += 1
            except ArchiveUnavailableError as error:
                if not is_last_attempt:
                    raise
                failure, outcome = error, SkippedInstance(reference.instance_uid, str(error))
            except (ArchiveRefusedError, StudyMissingError) as error:
                failure, outcome = error, SkippedInstance(reference.instance_uid, str(error))
            if outcome is not None:
                yield outcome
    if failure is not None and not received:
        raise failure if isinstance(failure, StudyMissingError) else NothingRetrievedError(str(failure)) from failure


async def _fetch(
    predictor: PredictorService, archive: OpenArchive, reference: InstanceReference
) -> FetchedRadiograph | SkippedInstance | None:
    """Fetch one instance; return None if it is not a radiograph, because archives may list instances without class."""
    data = await archive.run(archive.archive.retrieve_instance, reference, predictor.settings.max_upload_bytes)
    identity = await predictor.decoder.identify(data)
    if identity.study_uid != reference.study_uid:
        logger.warning("Archive %s returned a file of another study than requested.", archive.archive.name)
        return SkippedInstance(reference.instance_uid, OTHER_STUDY)
    if identity.instance_uid != reference.instance_uid:
        return SkippedInstance(reference.instance_uid, OTHER_INSTANCE)
    if not identity.is_radiograph:
        return None
    instance = Instance(identity.series_uid, identity.instance_uid, identity.sop_class_uid, data)
    return FetchedRadiograph(instance, identity.patient)
