"""Queries the jobs and files in the queue's database; changes nothing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Self

from sqlalchemy import func, select

from pacs.instance import Instance
from pacs.queue import tables
from pacs.queue.database import Database
from pacs.queue.encryption import Cipher
from pacs.queue.file_store import InstanceStore, ResultStore, StoredInstance
from pacs.queue.job import DONE, OPEN, Job, JobState
from pacs.queue.patient_digests import study_id
from pacs.queue.rows import (
    Relations,
    count_by_reason,
    find_predecessor,
    select_jobs,
    select_relations,
    select_versions,
    waits_for_earlier_version,
)


def utc_now() -> datetime:
    """Return the current time in UTC: the default clock of the storage that the repository queries."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class QueueStorage:
    """The storage that all parts of the queue share: the database, the stores and the limits.

    Attributes:
        max_bytes: size limit of the stored radiographs in bytes; dead jobs have another such limit of the same size.
        clock: returns the current time in UTC.
    """

    database: Database
    cipher: Cipher
    instances: InstanceStore
    results: ResultStore
    max_bytes: int
    clock: Callable[[], datetime]

    @classmethod
    def connect(cls, address: str, cipher: Cipher, max_bytes: int, clock: Callable[[], datetime]) -> Self:
        """Connect the queue's storage to the database at `address`; raises what `Database` does."""
        return cls(Database(address, cipher), cipher, InstanceStore(cipher), ResultStore(cipher), max_bytes, clock)


class JobRepository:
    """The repository of the queue: queries about jobs and their files. Thread-safe.

    Every method may raise JobsUnavailableError, and SealError if a stored file is damaged.
    """

    def __init__(self, storage: QueueStorage) -> None:
        self._storage = storage
        self._database = storage.database

    def find(self, job_id: str) -> Job | None:
        """Query the repository for the job with an ID; None if there is none."""
        with self._database.reading() as connection:
            return next(iter(select_jobs(connection, id=job_id)), None)

    def latest(self, limit: int, state: JobState | None = None, study_uid: str | None = None) -> list[Job]:
        """Query the repository for the latest jobs, newest first; `state` and `study_uid` select among them."""
        with self._database.reading() as connection:
            return select_jobs(connection, limit, state=state, study_uid=study_uid)

    def counts(self) -> dict[JobState, int]:
        """Query the repository for the number of jobs in each state, including states without jobs."""
        state = tables.jobs.c.state
        with self._database.reading() as connection:
            rows = connection.execute(select(state, func.count()).group_by(state)).all()
        return dict.fromkeys(JobState, 0) | {row[0]: row[1] for row in rows}

    def overdue(self) -> timedelta:
        """Query the repository for the time since the oldest open job was due or its lease expired.

        It is 0 if no job is overdue.
        """
        query = select(func.min(tables.jobs.c.due)).where(tables.jobs.c.state.in_(OPEN), ~waits_for_earlier_version())
        with self._database.reading() as connection:
            due: datetime | None = connection.execute(query).scalar()
        return max(self._storage.clock() - due, timedelta()) if due else timedelta()

    def left_alone(self) -> dict[str, int]:
        """Query the repository for the number of instances that were accepted but not analyzed, by reason."""
        with self._database.reading() as connection:
            return count_by_reason(connection, tables.left_alone.c.instances)

    def refusals(self) -> dict[str, int]:
        """Query the repository for the number of instances that were refused, by reason."""
        with self._database.reading() as connection:
            return count_by_reason(connection, tables.refusals.c.count)

    def relations(self, jobs: Sequence[Job]) -> list[Relations]:
        """Query the repository for the place of each job among the other jobs of its study."""
        with self._database.reading() as connection:
            return [select_relations(connection, job) for job in jobs]

    def stored_bytes(self) -> int:
        """Query the repository for the encrypted size of all stored radiographs, in bytes, without results."""
        with self._database.reading() as connection:
            return self._storage.instances.stored_bytes(connection)

    def radiographs(self, job: Job) -> list[StoredInstance]:
        """Query the repository for the radiographs of a job's study up to its version, without their data.

        They are in the order of arrival.
        """
        with self._database.reading() as connection:
            return self._storage.instances.select(connection, job.study_id, job.version)

    def load(self, stored: StoredInstance) -> Instance | None:
        """Load a radiograph with its data from the repository; None if its file was purged."""
        with self._database.reading() as connection:
            data = self._storage.instances.read_data(connection, stored.number)
        return None if data is None else replace(stored.instance, data=data)

    def stored_file(self, study_uid: str, instance_uid: str) -> bytes | None:
        """Load the file with a UID in a study from the repository; None if none is stored."""
        with self._database.reading() as connection:
            study = study_id(self._storage.cipher, study_uid)
            stored = self._storage.instances.find(connection, study, instance_uid)
            return None if stored is None else self._storage.instances.read_data(connection, stored.number)

    def instances(self, job_id: str) -> Iterator[Instance]:
        """Yield the repository's radiographs of a job's study up to its version, in order, one in memory at a time."""
        job = self.find(job_id)
        for stored in [] if job is None else self.radiographs(job):
            if (instance := self.load(stored)) is not None:
                yield instance

    def results(self, job_id: str) -> list[Instance]:
        """Load the results of a job from the repository; their data is empty once an archive has them."""
        with self._database.reading() as connection:
            return self._storage.results.select(connection, job_id)

    def fingerprints(self, instance_uid: str) -> set[bytes]:
        """Query the repository for the fingerprints of all results with a UID, of any attempt."""
        with self._database.reading() as connection:
            return self._storage.results.select_fingerprints(connection, instance_uid)

    def superseded_results(self, job: Job, basis: str) -> list[Instance]:
        """Query the repository for the results that new ones with that basis replace, without their data.

        The list is empty if the new ones are the first.
        """
        with self._database.reading() as connection:
            earlier = [each for each in select_versions(connection, job.study_id) if each.version < job.version]
            predecessor = find_predecessor(earlier, basis)
            if predecessor is None:
                return []
            return self._storage.results.select_references(connection, predecessor.id)

    def kept_results(self, study_uid: str, *, earlier: bool = False) -> list[Instance]:
        """Load a study's results that go to no archive from the repository: the latest or, with `earlier`, all."""
        with self._database.reading() as connection:
            done = [job for job in select_jobs(connection, study_uid=study_uid) if job.state in DONE]
            done.sort(key=lambda job: job.version, reverse=True)
            kept = [job for job in (done if earlier else done[:1]) if job.state == JobState.KEPT]
            return [result for job in kept for result in self._storage.results.select(connection, job.id)]

    def answer(self, job_id: str) -> str | None:
        """Load the FHIR report that was stored with a job's results from the repository; None if there is none."""
        query = select(tables.answers.c.sealed).where(tables.answers.c.job_id == job_id)
        with self._database.reading() as connection:
            encrypted = connection.execute(query).scalar()
        return None if encrypted is None else self._storage.cipher.decrypt(encrypted, f"answer {job_id}").decode()
