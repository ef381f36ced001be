"""Collects the radiographs of a job: those that were sent for its study and those that an archive has.

Radiographs that do not belong to the study are left out and named. If an instance was sent and is also in the archive,
the archive's file is used.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from app.hospital.fetch import NothingRetrievedError, SkippedInstance, fetch_radiographs
from app.hospital.gateway import Hospital, is_same_image
from app.inference.predictor_service import PredictorService
from pacs.errors import StudyMissingError
from pacs.instance import Instance
from pacs.queue.errors import OtherPatientError
from pacs.queue.file_store import ExaminedInstance, StoredInstance
from pacs.queue.jobs import Job
from pacs.queue.patient_digests import PatientDigests
from xray.errors import InputError
from xray.images.patient_identity import Patient

GONE = "It was sent earlier and its file is no longer kept; send it again."
OTHER_PATIENT = "It belongs to another patient, not to the study's."
OTHER_CONTENT = "The file that was sent with this UID differs from the archive's; the archive's file was analyzed."


@dataclass
class RadiographCollector:
    """Collects the radiographs for one attempt at a job; the lists grow while the caller iterates over `instances`.

    Attributes:
        examined: the instances that were yielded, and the sent ones that were left out, with digests of their content.
        left_out: SOP Instance UID and reason of each instance that was not yielded.
    """

    predictor: PredictorService
    hospital: Hospital
    job: Job
    examined: list[ExaminedInstance] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    async def instances(self) -> AsyncGenerator[Instance]:
        """Yield the radiographs that were sent for a job's study or that an archive has, one in memory at a time.

        Raises:
            StudyMissingError: the archive does not have the study, and nothing of it was sent.
            NothingRetrievedError: the archive lists radiographs but returns none, and nothing of the study was sent.
        """
        stored = {
            each.instance.instance_uid: each
            for each in await asyncio.to_thread(self.hospital.jobs.repository.radiographs, self.job)
        }
        archive_name = self.job.fetched_from
        if archive_name is None and not all(each.has_data for each in stored.values()):
            archive_name = self.job.archive  # this archive probably has the files that are no longer kept here
        if archive_name is not None:
            try:
                async with aclosing(self._fetch(archive_name, stored)) as fetched:
                    async for instance in fetched:
                        yield instance
            except (NothingRetrievedError, StudyMissingError):
                if not any(each.has_data for each in stored.values()):
                    raise
        seen = {each.instance.instance_uid for each in self.examined}
        for each in stored.values():
            if each.instance.instance_uid not in seen and (sent := await self._load(each)) is not None:
                # The archive's file with this UID may have been left out; the file that was sent replaces it.
                self.left_out = [(uid, reason) for uid, reason in self.left_out if uid != sent.instance_uid]
                yield sent

    async def _load(self, stored: StoredInstance) -> Instance | None:
        """Load an instance that was sent; None if it is left out."""
        instance: Instance | None = await asyncio.to_thread(self.hospital.jobs.repository.load, stored)
        if instance is None:
            self.left_out.append((stored.instance.instance_uid, GONE))
            return None
        self._record(instance, stored.digest)
        try:
            patient = stored.patient or (await self.predictor.decoder.identify(instance.data)).patient
        except InputError as error:
            self.left_out.append((instance.instance_uid, str(error)))
            return None
        return instance if await self._is_of_patient(instance.instance_uid, patient) else None

    async def _fetch(self, archive_name: str, stored: dict[str, StoredInstance]) -> AsyncGenerator[Instance]:
        """Yield the archive's radiographs of the study's patient, each once."""
        async with aclosing(fetch_radiographs(self.predictor, self.hospital, self.job, archive_name)) as fetched:
            async for each in fetched:
                if isinstance(each, SkippedInstance):
                    self.left_out.append((each.instance_uid, each.reason))
                elif any(each.instance.instance_uid == known.instance.instance_uid for known in self.examined):
                    continue  # the archive lists the instance in two series
                elif await self._is_of_patient(each.instance.instance_uid, each.patient):
                    await self._compare(each.instance, stored.get(each.instance.instance_uid))
                    yield each.instance

    async def _compare(self, instance: Instance, stored: StoredInstance | None) -> None:
        """Compare an instance of the archive with the one that was sent with the same UID."""
        digest = await asyncio.to_thread(self.hospital.jobs.digest, instance.data)
        if stored is not None and stored.has_data and stored.digest != digest:
            sent: Instance | None = await asyncio.to_thread(self.hospital.jobs.repository.load, stored)
            if sent is not None and await is_same_image(sent.data, instance.data, self.predictor.decoder.decode):
                digest = stored.digest or digest
            elif sent is not None:
                self.left_out.append((instance.instance_uid, OTHER_CONTENT))
        self._record(instance, digest)

    async def _is_of_patient(self, instance_uid: str, patient: Patient | PatientDigests) -> bool:
        """Return whether an instance belongs to the study's patient, which is that of the study's first instance."""
        try:
            await asyncio.to_thread(self.hospital.jobs.intake.assign_patient, self.job, patient)
        except OtherPatientError:
            self.left_out.append((instance_uid, OTHER_PATIENT))
            return False
        return True

    def _record(self, instance: Instance, digest: bytes | None) -> None:
        content = self.hospital.jobs.digest(instance.data) if digest is None else digest
        self.examined.append(ExaminedInstance(replace(instance, data=b""), content))
