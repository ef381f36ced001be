"""Sends results to an archive and checks that the archive returns the same results under their UIDs."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from app.hospital.archive_threads import OpenArchive
from app.hospital.gateway import Hospital
from pacs.client.qido_json import InstanceReference
from pacs.errors import ArchiveRefusedError, ArchiveUnavailableError
from pacs.instance import Instance
from pacs.queue.errors import OtherPatientError
from pacs.queue.job import Job
from pacs.results.rendering.worker_pool import ResultPool
from xray.images.patient_identity import Patient, normalize_text

SPARE_BYTES = 64 << 10
"""Allowance for attributes that an archive adds to a stored result, in bytes."""


async def require_same_patient(hospital: Hospital, open_archive: OpenArchive, job: Job) -> None:
    """Compare the patient of a job's study with the archive's before delivery, if the archive has the study.

    Any sender that knows a Study Instance UID can send another patient's radiograph with it before the archive does.

    Raises:
        ArchiveRefusedError: the archive has the study only under other Patient IDs.
        PacsError: the archive cannot be searched.
    """
    archive = open_archive.archive
    patient_ids = await open_archive.run(archive.patient_ids, job.study_uid)
    for patient_id in patient_ids:
        with suppress(OtherPatientError):
            await asyncio.to_thread(hospital.jobs.intake.assign_patient, job, Patient(normalize_text(patient_id)))
            return
    if patient_ids:
        raise ArchiveRefusedError(
            f"Archive {archive.name} has this study under another Patient ID than the radiographs that were sent; find "
            "out which is right. If the archive changes the IDs of everything it stores, set `coerces_patient_ids`."
        )


async def deliver(
    pool: ResultPool,
    open_archive: OpenArchive,
    study_uid: str,
    results: Sequence[Instance],
    fingerprints: Mapping[str, Collection[bytes]],
) -> None:
    """Deliver results to an archive: store those that it does not have yet, then retrieve each one as confirmation.

    Args:
        fingerprints: by SOP Instance UID, the fingerprints of the files that count as that result.

    Raises:
        PacsError: the archive refuses the results, does not find them yet, or has another object under one of the UIDs.
    """
    archive, uids = open_archive.archive, [result.instance_uid for result in results]
    if not await open_archive.run(archive.has_instances, study_uid, uids):
        await open_archive.run(archive.store_files, [result.data for result in results])
        if not await open_archive.run(archive.has_instances, study_uid, uids):
            raise ArchiveUnavailableError(f"Archive {archive.name} accepted the results but does not find them yet.")
    for result in results:
        reference = InstanceReference(study_uid, result.series_uid, result.instance_uid, result.sop_class_uid, "")
        retrieved = await open_archive.run(archive.retrieve_decoded, reference, len(result.data) + SPARE_BYTES)
        if retrieved is None or await pool.fingerprint(retrieved) not in fingerprints.get(result.instance_uid, ()):
            raise ArchiveRefusedError(
                f"Archive {archive.name} has a different object than the result under {result.instance_uid}, or does "
                "not return it."
            )
