"""A durable queue of studies: stores radiographs and leases jobs to workers, so that none is lost or done twice.

Everything is committed when a method returns, and a worker can write only while it holds the lease. The clocks of
replicas on several machines must agree to within a lease; otherwise studies are analyzed twice, with the same results.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select

from pacs.instance import Instance
from pacs.queue import tables
from pacs.queue.encryption import Cipher
from pacs.queue.file_store import ExaminedInstance, content_digest
from pacs.queue.intake import Intake
from pacs.queue.job import DEFAULT_POLICY, FINISHED, OPEN, Arrival, Job, JobState, RetryPolicy, Settling, Source
from pacs.queue.repository import JobRepository, QueueStorage, utc_now
from pacs.queue.rows import (
    lock_job,
    lock_study,
    require_lease,
    select_relations,
    update_job,
    waits_for_earlier_version,
)

__all__ = ["Arrival", "Instance", "Job", "JobState", "Jobs", "Outcome", "RetryPolicy", "Settling", "Source"]

ATTEMPTS_EXHAUSTED = "The service stopped in the middle of an attempt, and the attempts are used up."


@dataclass(frozen=True)
class Outcome:
    """What a worker gives `Jobs` to store for a job that it leased from the queue, after it analyzed the study.

    Attributes:
        results: DICOM files, each with its fingerprint.
        answer: the FHIR report, as JSON.
        basis: keyed digest of the inputs of the analysis; see `Jobs.basis`.
        examined: the radiographs that were examined, whether analyzed or left out.
        left_out: a sentence about the radiographs that were left out; it stays if a later attempt only delivers.
    """

    results: Sequence[tuple[Instance, bytes | None]]
    answer: str
    checkpoint: str
    basis: str
    examined: Sequence[ExaminedInstance] = ()
    left_out: str | None = None


class Jobs:
    """The queue of jobs, for workers and operators. Thread-safe; several processes may use the same database.

    Every method may raise JobsUnavailableError.

    Attributes:
        intake: adds radiographs to studies.
        repository: answers questions about jobs and their files.
    """

    def __init__(self, address: str, cipher: Cipher, max_bytes: int, clock: Callable[[], datetime] = utc_now) -> None:
        """Connect to the database at `address`; see `QueueStorage` for the other arguments.

        Raises:
            ConfigurationError: the address is not valid, or a newer version of this program wrote the database.
            SealError: the database was encrypted with another key.
            JobsUnavailableError: the database does not respond.
        """
        self._storage = QueueStorage.connect(address, cipher, max_bytes, clock)
        self.repository = JobRepository(self._storage)
        self.intake = Intake(self._storage)

    def close(self) -> None:
        """Close the queue of jobs: its connections to the database."""
        self._storage.database.close()

    def lease(self, owner: str, lease: timedelta, policy: RetryPolicy = DEFAULT_POLICY) -> Job | None:
        """Lease the queue's earliest job that is due or whose lease has expired; no two callers get the same job.

        A new version of a study waits until the previous one has ended. An attempt counts when it starts, so that a
        study that crashes the service also runs out of attempts.
        """
        now = self._storage.clock()
        table = tables.jobs
        due = select(table).where(table.c.state.in_(OPEN), table.c.due <= now, ~waits_for_earlier_version())
        due = due.order_by(table.c.due, table.c.id)
        with self._storage.database.writing() as connection:
            while row := connection.execute(due.limit(1).with_for_update(skip_locked=True, of=table)).first():
                job = Job(**row._mapping)
                if job.state == JobState.WAITING or not job.has_used_up(policy):
                    return update_job(connection, job.leased(owner, now, lease))
                update_job(connection, job.postponed(ATTEMPTS_EXHAUSTED, policy, now))
        return None

    def renew(self, job: Job, lease: timedelta) -> Job:
        """Extend the lease of a job in the queue to `lease` from now. Raises LeaseLostError."""
        with self._storage.database.writing() as connection:
            return update_job(connection, replace(require_lease(connection, job), due=self._storage.clock() + lease))

    def store_results(self, job: Job, outcome: Outcome) -> list[Instance]:
        """Store the results of a job in the queue before anything is sent; return the valid results.

        If an earlier attempt has stored results, those stay valid and `outcome` is discarded.

        Raises:
            LeaseLostError: nothing was stored; the results must not be sent.
        """
        storage, now = self._storage, self._storage.clock()
        with storage.database.writing() as connection:
            lock_study(connection, job.study_id)
            current = require_lease(connection, job)
            if not storage.results.has_any(connection, job.id):
                for result, fingerprint in outcome.results:
                    storage.results.insert(connection, job.id, result, fingerprint)
                encrypted = storage.cipher.encrypt(outcome.answer.encode(), f"answer {job.id}")
                connection.execute(tables.answers.insert().values(job_id=job.id, sealed=encrypted))
                storage.instances.mark_examined(connection, job.study_id, (job.version, now), outcome.examined)
                update_job(connection, current.answer_stored(outcome.checkpoint, outcome.basis, outcome.left_out, now))
            return storage.results.select(connection, job.id)

    def finish(
        self, job: Job, state: JobState, reason: str | None = None, examined: Sequence[ExaminedInstance] = ()
    ) -> Job:
        """End a job of the queue as delivered, kept or refused; of delivered results, only UIDs and fingerprints stay.

        The radiographs stay until `purge_answered` or eviction deletes them, in case more of the study arrives.

        Raises:
            LeaseLostError: nothing was changed.
        """
        if state not in FINISHED:
            raise ValueError(f"a job does not finish as {state}")
        storage, now = self._storage, self._storage.clock()
        with storage.database.writing() as connection:
            lock_study(connection, job.study_id)
            current = require_lease(connection, job)
            storage.instances.mark_examined(connection, job.study_id, (job.version, now), examined)
            if state == JobState.DELIVERED:
                storage.results.purge(connection, job.id)
            return update_job(connection, current.finished(state, reason, now))

    def postpone(self, job: Job, reason: str, policy: RetryPolicy = DEFAULT_POLICY) -> Job:
        """Postpone a job of the queue after an attempt without results; it waits, longer each time, or is dead.

        Raises:
            LeaseLostError: nothing was changed.
        """
        with self._storage.database.writing() as connection:
            current = require_lease(connection, job)
            return update_job(connection, current.postponed(reason, policy, self._storage.clock()))

    def retry(self, job_id: str) -> Job | None:
        """Restart a dead job of the queue, unless a later job has analyzed its study.

        Returns any other job unchanged, and None if there is no such job.
        """
        with self._storage.database.writing() as connection:
            job = lock_job(connection, job_id)
            if job is None or job.state != JobState.DEAD or select_relations(connection, job).superseded_by is not None:
                return job
            return update_job(connection, job.restarted(self._storage.clock()))

    def purge_answered(self, age: timedelta) -> int:
        """Delete the queue's radiographs that are older than `age` and that no job needs; return their number."""
        with self._storage.database.writing() as connection:
            return self._storage.instances.purge_answered(connection, self._storage.clock() - age)

    def purge_dead(self, age: timedelta) -> int:
        """Delete the queue's files of studies whose job has been dead for `age`; return the number of jobs.

        If dead jobs exceed the storage limit, the files of those that have been dead longest are deleted too.
        """
        table, storage = tables.jobs, self._storage
        is_dead = (table.c.state == JobState.DEAD) & (table.c.instances > 0)
        purged = 0
        with storage.database.writing() as connection:
            rows = connection.execute(select(table).where(is_dead).order_by(table.c.changed)).all()
            for job in [Job(**row._mapping) for row in rows]:
                is_old = job.changed <= storage.clock() - age
                is_over_limit = (
                    job.answered is None
                    and storage.instances.stored_bytes(connection, JobState.DEAD) > storage.max_bytes
                )
                if is_old or is_over_limit:
                    purged += self._purge(connection, job)
        return purged

    def _purge(self, connection: Connection, job: Job) -> bool:
        """Delete the files of a dead job; return False if the job was restarted in the meantime."""
        lock_study(connection, job.study_id)
        current = lock_job(connection, job.id)
        if current is None or current.state != JobState.DEAD:
            return False
        self._storage.instances.purge(connection, job.study_id)
        self._storage.results.delete(connection, job.id)
        connection.execute(delete(tables.answers).where(tables.answers.c.job_id == job.id))
        update_job(connection, current.purged(self._storage.clock()))
        return True

    def basis(self, job: Job, parts: Sequence[str]) -> str:
        """Return the queue's keyed digest of an analysis's inputs; jobs with the same basis have the same results."""
        return self._storage.cipher.digest("basis", job.study_id, *parts).hex()

    def seed(self, basis: str, replaced: Sequence[Instance]) -> bytes:
        """Return the secret that the queue derives for the UIDs of a job's results."""
        return self._storage.cipher.digest("seed", basis, *(each.instance_uid for each in replaced))

    def digest(self, data: bytes) -> bytes:
        """Return the queue's keyed digest of a DICOM file's content, as in `StoredInstance.digest`."""
        return content_digest(self._storage.cipher, data)
