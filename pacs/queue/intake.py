"""Takes radiographs into the jobs of their studies, each into exactly one version that will answer for it.

Whoever sends into a study is compared with the patient who was first there. Transactions that change a study lock its
row, so that what comes in the same instant comes one after the other.
"""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from pacs.instance import Instance
from pacs.queue.errors import OtherContentError, OtherPatientError, SpoolFullError
from pacs.queue.incoming import Known, content_digest
from pacs.queue.job import DONE, OPEN, Arrival, Job, JobState, Settling
from pacs.queue.job_rows import added, locked, owned, saved
from pacs.queue.known_jobs import KnownJobs
from pacs.queue.owner import Owner
from pacs.queue.study_rows import Study, claim, count_refusal, job_id, locked_study, opened, versions
from xray.images.patient import Patient


class Intake(KnownJobs):
    """What makes studies grow."""

    def receive(self, arrival: Arrival, instance: Instance, settling: Settling) -> Job:
        """Put an instance into its study, and return the job that answers for it.

        One that comes before its study's work has begun, or soon after, joins it: the lease of a worker is withdrawn,
        and the grown study begins again as a whole. One that comes later makes a further version of the study, which
        has all instances. What is there already with the same content changes nothing, unless the answer lacks it or
        is another network's; it begins a job anew that was refused or is dead.

        Raises:
            OtherPatientError: the study is another patient's.
            OtherContentError: the study has an instance of that UID with other bytes.
            SpoolFullError: the limit is reached. Nothing was stored, whichever of these it is.
        """
        now, digest = self._clock(), content_digest(self._seal, instance.data)
        owner = Owner.of(self._seal, arrival.patient)
        with self._database.writing() as connection:
            study = opened(connection, self._database, self._seal, arrival.study_uid)
            latest = self._latest(connection, study)
            self._require_patient(connection, study, latest, owner)
            known = self._incoming.find(connection, study.id, instance.instance_uid)
            if known is not None and not self._is_same(connection, known, digest):
                if known.is_here or latest is None or latest.fetched_from is None:
                    raise OtherContentError(f"Instance {instance.instance_uid} came before with another content.")
                known = replace(known, judged=0)  # the worker compares it with the archive's own
            job = self._job_for(study, latest, known, (arrival, now, settling))
            if latest is not None and job == latest:
                return latest
            job = (added if latest is None or job.id != latest.id else saved)(connection, job)
            if known is None:
                self._incoming.put(connection, study.id, instance, owner, (job.version, now))
            else:
                self._incoming.restore(connection, study.id, known, instance, now)
            self._require_room(connection)
            return job

    def request(self, study_uid: str, checkpoint: str, archive: str) -> Job:
        """The job of a study that is to be fetched from an archive and given back to it, with what was sent of it.

        One that is already to be fetched from there is returned as it is. A study that has its answer gets a further
        version, as the archive may have more of it now; where it has not, the results are the same as before.
        """
        now = self._clock()
        with self._database.writing() as connection:
            study = opened(connection, self._database, self._seal, study_uid)
            latest = self._latest(connection, study)
            if latest is not None and latest.answered is None and latest.fetched_from == latest.archive == archive:
                return latest if latest.state != JobState.DEAD else saved(connection, latest.anew(now))
            arrival = Arrival(study_uid, Patient(), checkpoint, archive, "pull")
            if latest is None or self._is_left_as_it_is(latest, archive):
                further = self._next(study, latest, arrival, now)
                return added(connection, replace(further, archive=archive, fetched_from=archive))
            if latest.state in (JobState.REFUSED, JobState.DEAD):
                latest = replace(latest.anew(now), source="pull", checkpoint=checkpoint)
            return saved(connection, replace(latest.withdrawn(now), archive=archive, fetched_from=archive))

    def _is_left_as_it_is(self, latest: Job, archive: str) -> bool:
        """Whether a request for a study makes a further version: its answer is there, or is to go elsewhere."""
        if latest.answered is not None:
            return latest.state != JobState.REFUSED
        return latest.state in OPEN and latest.archive not in (None, archive)

    def claim(self, job: Job, patient: Patient | Owner) -> None:
        """Let the study of a job be that patient's, as what its worker has found says.

        Raises:
            OtherPatientError: it is another's.
            LeaseLostError: nothing was changed.
        """
        with self._database.writing() as connection:
            study = locked_study(connection, job.study_id)
            owned(connection, job)
            claim(connection, study, patient if isinstance(patient, Owner) else Owner.of(self._seal, patient))

    def refuse(self, study_uid: str, reason: str) -> str | None:
        """Count an instance that was not taken into that study; the id of its latest job, if it has one."""
        with self._database.writing() as connection:
            study = opened(connection, self._database, self._seal, study_uid)
            count_refusal(connection, self._database, study.id, reason)
            return next((job.id for job in versions(connection, study.id)), None)

    def _latest(self, connection: Connection, study: Study) -> Job | None:
        """The latest version, locked."""
        jobs = versions(connection, study.id)
        return locked(connection, jobs[0].id) if jobs else None

    def _require_patient(self, connection: Connection, study: Study, latest: Job | None, owner: Owner) -> None:
        """Raises OtherPatientError. The owner of a study that is still to be fetched is whom the archive names, not
        whoever sends into it meanwhile.
        """
        if study.owner is not None or latest is None or latest.fetched_from is None or latest.answered is not None:
            claim(connection, study, owner)
            return
        there = self._incoming.all_of(connection, study.id, latest.version)
        if any(each.owner is not None and not each.owner.is_same_patient(owner) for each in there):
            raise OtherPatientError("The study is another patient's.")

    def _is_same(self, connection: Connection, known: Known, digest: bytes) -> bool:
        if known.digest is not None:
            return known.digest == digest
        data = self._incoming.data(connection, known.number)  # an earlier layout had no digests
        return data is not None and content_digest(self._seal, data) == digest

    def _job_for(
        self, study: Study, latest: Job | None, known: Known | None, event: tuple[Arrival, datetime, Settling]
    ) -> Job:
        """Which job an instance is for, as it is then; the latest as it is where the instance changes nothing."""
        arrival, now, settling = event
        if latest is None:
            return self._next(study, None, arrival, now).grown(now, settling)
        again = latest.anew(now, settling.pause)
        if latest.state == JobState.DEAD and (latest.answered is None or known is not None):
            return again if known is not None and known.is_here else again.grown(now, settling)
        if latest.state == JobState.REFUSED and known is not None:
            return again
        if latest.takes_more(now, settling):
            return latest if known is not None and known.is_here else latest.grown(now, settling)
        if known is not None and self._is_answered(latest, known, arrival):
            return latest
        return self._next(study, latest, arrival, now).grown(now, settling)

    def _is_answered(self, latest: Job, known: Known, arrival: Arrival) -> bool:
        """Whether the study's answer, which is there or being worked on, is about this instance too."""
        if latest.answered is None:
            return known.is_here
        # The node that takes C-STORE does not follow the service's reloads.
        renewed = latest.state in DONE and arrival.source == "stow" and arrival.checkpoint != latest.checkpoint
        return known.judged >= latest.version and not renewed

    def _next(self, study: Study, latest: Job | None, arrival: Arrival, now: datetime) -> Job:
        """The job after the latest, without instances; it gives its results where those before it went if the study
        is fetched from there.
        """
        version = 1 if latest is None else latest.version + 1
        fetched_from = None if latest is None else latest.fetched_from
        return Job(
            id=job_id(self._seal, study.id, version),
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

    def _require_room(self, connection: Connection) -> None:
        """Make room by what nobody waits for any more. Replicas that store in the same instant may exceed the limit
        by what each of them stores.

        Raises:
            SpoolFullError: that is not enough.
        """
        dead = self._incoming.bytes(connection, JobState.DEAD)  # they have a limit of their own
        excess = self._incoming.bytes(connection) - dead - self._max_bytes
        if excess > 0 and self._incoming.make_room(connection, excess) < excess:
            raise SpoolFullError("As many bytes of studies are on their way as may be; send this one again later.")
