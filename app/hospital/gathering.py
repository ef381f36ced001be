"""Brings together the radiographs that a job is about: what was sent of its study and what an archive has.

What does not belong there is left out and named. Where both have an instance, the archive's is judged.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from app.hospital.fetching import LeftOut, NoneGivenError, fetched
from app.hospital.gateway import Hospital, shows_the_same
from app.inference.predictor_service import PredictorService
from pacs.errors import StudyMissingError
from pacs.instance import Instance
from pacs.queue.errors import OtherPatientError
from pacs.queue.file_store import ExaminedInstance, StoredInstance
from pacs.queue.jobs import Job
from pacs.queue.patient_digests import PatientDigests
from xray.errors import InputError
from xray.images.patient_identity import Patient

GONE = "It came earlier and its file is no longer kept; send it again."
OTHER_PATIENT = "It belongs to another patient than the study."
OTHER_CONTENT = "A file of this UID was sent whose content is not the archive's; the archive's was judged."


@dataclass
class Gathering:
    """The radiographs of one attempt at a job; the lists fill up while `instances` is gone through.

    Attributes:
        looked: all that were given out, and those sent that were left out, each with the digest of its content.
        left_out: SOP Instance UIDs of what was not given out, and why.
    """

    service: PredictorService
    hospital: Hospital
    job: Job
    looked: list[ExaminedInstance] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    async def instances(self) -> AsyncGenerator[Instance]:
        """One in memory at a time.

        Raises:
            StudyMissingError: it was to be fetched, the archive does not have it, and nothing of it was sent.
            NoneGivenError: the archive lists radiographs and gives none of them, and nothing of the study was sent.
        """
        known = {
            each.instance.instance_uid: each
            for each in await asyncio.to_thread(self.hospital.jobs.repository.radiographs, self.job)
        }
        name = self.job.fetched_from
        if name is None and not all(each.has_data for each in known.values()):
            name = self.job.archive  # which most likely has what is no longer here
        if name is not None:
            try:
                async with aclosing(self._fetched(name, known)) as given:
                    async for instance in given:
                        yield instance
            except (NoneGivenError, StudyMissingError):
                if not any(each.has_data for each in known.values()):
                    raise
        seen = {each.instance.instance_uid for each in self.looked}
        for each in known.values():
            if each.instance.instance_uid not in seen and (sent := await self._sent(each)) is not None:
                # The archive's file of that UID may have been left out, and this one is judged in its place.
                self.left_out = [(uid, reason) for uid, reason in self.left_out if uid != sent.instance_uid]
                yield sent

    async def _sent(self, known: StoredInstance) -> Instance | None:
        """What was sent; None where it is left out."""
        instance: Instance | None = await asyncio.to_thread(self.hospital.jobs.repository.load, known)
        if instance is None:
            self.left_out.append((known.instance.instance_uid, GONE))
            return None
        self._look(instance, known.digest)
        try:
            patient = known.patient or (await self.service.passes.identify(instance.data)).patient
        except InputError as error:
            self.left_out.append((instance.instance_uid, str(error)))
            return None
        return instance if await self._is_theirs(instance.instance_uid, patient) else None

    async def _fetched(self, name: str, known: dict[str, StoredInstance]) -> AsyncGenerator[Instance]:
        """What an archive has."""
        async with aclosing(fetched(self.service, self.hospital, self.job, name)) as given:
            async for each in given:
                if isinstance(each, LeftOut):
                    self.left_out.append((each.instance_uid, each.reason))
                elif any(each.instance.instance_uid == looked.instance.instance_uid for looked in self.looked):
                    continue  # the archive lists it in two series
                elif await self._is_theirs(each.instance.instance_uid, each.patient):
                    await self._compare(each.instance, known.get(each.instance.instance_uid))
                    yield each.instance

    async def _compare(self, instance: Instance, known: StoredInstance | None) -> None:
        """With what was sent under the same UID."""
        digest = await asyncio.to_thread(self.hospital.jobs.digest, instance.data)
        if known is not None and known.has_data and known.digest != digest:
            sent: Instance | None = await asyncio.to_thread(self.hospital.jobs.repository.load, known)
            if sent is not None and await shows_the_same(sent.data, instance.data, self.service.passes.decode):
                digest = known.digest or digest
            elif sent is not None:
                self.left_out.append((instance.instance_uid, OTHER_CONTENT))
        self._look(instance, digest)

    async def _is_theirs(self, instance_uid: str, patient: Patient | PatientDigests) -> bool:
        """Whether it belongs to the study's patient, who is the first that is asked for."""
        try:
            await asyncio.to_thread(self.hospital.jobs.intake.assign_patient, self.job, patient)
        except OtherPatientError:
            self.left_out.append((instance_uid, OTHER_PATIENT))
            return False
        return True

    def _look(self, instance: Instance, digest: bytes | None) -> None:
        known = self.hospital.jobs.digest(instance.data) if digest is None else digest
        self.looked.append(ExaminedInstance(replace(instance, data=b""), known))
