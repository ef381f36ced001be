"""The queue's intake: adds radiographs to their studies, each to exactly one version, and counts the refused ones.

The patient of each radiograph is compared with the patient of the study's first one. Transactions that change a study
lock its row, so that simultaneous arrivals are handled one after the other.
"""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from pacs.instance import Instance
from pacs.queue import tables
from pacs.queue.errors import OtherContentError, OtherPatientError, SpoolFullError
from pacs.queue.file_store import StoredInstance, content_digest
from pacs.queue.job import DONE, OPEN, Arrival, Job, JobState, Settling
from pacs.queue.patient_digests import PatientDigests
from pacs.queue.repository import QueueStorage
from pacs.queue.rows import (
    Study,
    assign_patient,
    increment,
    insert_job,
    job_id,
    lock_job,
    lock_or_create_study,
    lock_study,
    require_lease,
    select_versions,
    update_job,
)
from xray.images.patient_identity import Patient


class Intake:
    """The queue's intake, which adds radiographs to studies and creates their jobs."""

    def __init__(self, storage: QueueStorage) -> None:
        self._storage = storage

    def receive(self, arrival: Arrival, instance: Instance, settling: Settling) -> Job:
        """Take in an instance: add it to its study, and return the job that will cover it.

        An instance that arrives before work on its study has begun, or soon after, joins the open job. If a worker has
        the job, its lease is revoked and the job starts over with all instances. A later instance creates a new version
        of the study, which includes all instances. An instance that is already stored with the same content restarts a
        job that is refused or dead. Otherwise it changes nothing, unless the results do not cover it or come from
        another network.

        Raises:
            OtherPatientError: the study belongs to another patient.
            OtherContentError: the study has an instance with that UID and other content.
            SpoolFullError: the storage limit is reached.

        If one of these errors is raised, nothing is stored.
        """
        storage, now = self._storage, self._storage.clock()
        digest = content_digest(storage.cipher, instance.data)
        patient = PatientDigests.from_patient(storage.cipher, arrival.patient)
        with storage.database.writing() as connection:
            study = lock_or_create_study(connection, storage.database, storage.cipher, arrival.study_uid)
            latest = self._latest(connection, study)
            self._require_patient(connection, study, latest, patient)
            stored = storage.instances.find(connection, study.id, instance.instance_uid)
            if stored is not None and not self._is_same(connection, stored, digest):
                if stored.has_data or latest is None or latest.fetched_from is None:
                    raise OtherContentError(f"Instance {instance.instance_uid} is already stored with other content.")
                stored = replace(stored, judged=0)  # makes the worker compare it with the archive's file
            job = self._job_for(study, latest, stored, (arrival, now, settling))
            if latest is not None and job == latest:
                return latest
            job = (insert_job if latest is None or job.id != latest.id else update_job)(connection, job)
            if stored is None:
                storage.instances.insert(connection, study.id, instance, patient, (job.version, now))
            else:
                storage.instances.restore_data(connection, study.id, stored, instance, now)
            self._enforce_limit(connection)
            return job

    def request(self, study_uid: str, checkpoint: str, archive: str) -> Job:
        """Take in a request to fetch a study from an archive: create or update its job, whose results go back there.

        Radiographs of the study that were sent are included. A job that already fetches from that archive is returned
        unchanged. A study that is answered gets a new version, because the archive may have more radiographs now; if it
        does not, the results are the same as before.
        """
        storage, now = self._storage, self._storage.clock()
        with storage.database.writing() as connection:
            study = lock_or_create_study(connection, storage.database, storage.cipher, study_uid)
            latest = self._latest(connection, study)
            if latest is not None and latest.answered is None and latest.fetched_from == latest.archive == archive:
                return latest if latest.state != JobState.DEAD else update_job(connection, latest.restarted(now))
            arrival = Arrival(study_uid, Patient(), checkpoint, archive, "pull")
            if latest is None or self._needs_further_version(latest, archive):
                further = self._next(study, latest, arrival, now)
                return insert_job(connection, replace(further, archive=archive, fetched_from=archive))
            if latest.state in (JobState.REFUSED, JobState.DEAD):
                latest = replace(latest.restarted(now), source="pull", checkpoint=checkpoint)
            revoked = latest.with_lease_revoked(now)
            return update_job(connection, replace(revoked, archive=archive, fetched_from=archive))

    def _needs_further_version(self, latest: Job, archive: str) -> bool:
        """Return whether a request creates a new version: the study is answered or its results go elsewhere."""
        if latest.answered is not None:
            return latest.state != JobState.REFUSED
        return latest.state in OPEN and latest.archive not in (None, archive)

    def assign_patient(self, job: Job, patient: Patient | PatientDigests) -> None:
        """Take in the patient that a job's worker found: assign the study of the job to that patient.

        Raises:
            OtherPatientError: the study belongs to another patient.
            LeaseLostError: nothing was changed.
        """
        if isinstance(patient, Patient):
            patient = PatientDigests.from_patient(self._storage.cipher, patient)
        with self._storage.database.writing() as connection:
            study = lock_study(connection, job.study_id)
            require_lease(connection, job)
            assign_patient(connection, study, patient)

    def count_refusal(self, study_uid: str, reason: str) -> str | None:
        """Count an instance that the intake refused in a study; return the ID of the study's latest job, or None."""
        storage = self._storage
        with storage.database.writing() as connection:
            study = lock_or_create_study(connection, storage.database, storage.cipher, study_uid)
            key = {"study_id": study.id, "reason": reason}
            increment(connection, storage.database, tables.refusals.c.count, key)
            return next((job.id for job in select_versions(connection, study.id)), None)

    def count_left_alone(self, reason: str, instances: int = 1) -> None:
        """Count instances that the intake leaves alone, accepted but not analyzed.

        `reason` is one of a small fixed set.
        """
        database, counter = self._storage.database, tables.left_alone.c.instances
        with database.writing() as connection:
            increment(connection, database, counter, {"reason": reason}, instances, latest=self._storage.clock())

    def _latest(self, connection: Connection, study: Study) -> Job | None:
        """Return the study's latest job and lock its row."""
        jobs = select_versions(connection, study.id)
        return lock_job(connection, jobs[0].id) if jobs else None

    def _require_patient(
        self, connection: Connection, study: Study, latest: Job | None, patient: PatientDigests
    ) -> None:
        """Raise OtherPatientError if the study belongs to another patient.

        If a study is still to be fetched, the archive determines its patient, so instances that are sent in the
        meantime do not.
        """
        if study.patient is not None or latest is None or latest.fetched_from is None or latest.answered is not None:
            assign_patient(connection, study, patient)
            return
        sent = self._storage.instances.select(connection, study.id, latest.version)
        if any(each.patient is not None and not each.patient.is_same_patient(patient) for each in sent):
            raise OtherPatientError("The study belongs to another patient.")

    def _is_same(self, connection: Connection, stored: StoredInstance, digest: bytes) -> bool:
        if stored.digest is not None:
            return stored.digest == digest
        data = self._storage.instances.read_data(connection, stored.number)  # rows of layout 1 have no digest
        return data is not None and content_digest(self._storage.cipher, data) == digest

    def _job_for(
        self, study: Study, latest: Job | None, stored: StoredInstance | None, event: tuple[Arrival, datetime, Settling]
    ) -> Job:
        """Return the job that will cover an instance, or the latest job unchanged if the instance changes nothing."""
        arrival, now, settling = event
        if latest is None:
            return self._next(study, None, arrival, now).with_instance(now, settling)
        restarted = latest.restarted(now, settling.pause)
        if latest.state == JobState.DEAD and (latest.answered is None or stored is not None):
            return restarted if stored is not None and stored.has_data else restarted.with_instance(now, settling)
        if latest.state == JobState.REFUSED and stored is not None:
            return restarted
        if latest.accepts_instance(now, settling):
            return latest if stored is not None and stored.has_data else latest.with_instance(now, settling)
        if stored is not None and self._is_answered(latest, stored, arrival):
            return latest
        return self._next(study, latest, arrival, now).with_instance(now, settling)

    def _is_answered(self, latest: Job, stored: StoredInstance, arrival: Arrival) -> bool:
        """Return whether the study's results, stored or in progress, cover this instance."""
        if latest.answered is None:
            return stored.has_data
        # The C-STORE node does not follow the service's reloads, so its checkpoint may be outdated.
        has_new_checkpoint = (
            latest.state in DONE and arrival.source == "stow" and arrival.checkpoint != latest.checkpoint
        )
        return stored.judged >= latest.version and not has_new_checkpoint

    def _next(self, study: Study, latest: Job | None, arrival: Arrival, now: datetime) -> Job:
        """Return a new job that follows the latest one, without instances.

        If the study is fetched from an archive, the results go to that archive, as before.
        """
        version = 1 if latest is None else latest.version + 1
        fetched_from = None if latest is None else latest.fetched_from
        return Job(
            id=job_id(self._storage.cipher, study.id, version),
            study_id=study.id,
            study_uid=study.study_uid,
            version=version,
            checkpoint=arrival.checkpoint,
            archive=arrival.archive if fetched_from is None else fetched_from,
            fetched_from=fetched_from,
            source=arrival.source,
            state=JobState.WAITING,
            attempts=0,
            due=now,
            reason=None,
            created=now,
            opened=now,
            changed=now,
        )

    def _enforce_limit(self, connection: Connection) -> None:
        """Evict files that no job needs until the stored files are within the limit.

        Replicas that store at the same time may together exceed the limit by one file each.

        Raises:
            SpoolFullError: too few files can be evicted.
        """
        instances = self._storage.instances
        dead = instances.stored_bytes(connection, JobState.DEAD)  # these have a separate limit
        excess = instances.stored_bytes(connection) - dead - self._storage.max_bytes
        if excess > 0 and instances.evict(connection, excess) < excess:
            raise SpoolFullError(
                f"The stored studies reach the limit of {self._storage.max_bytes} bytes; send the instance again later."
            )
