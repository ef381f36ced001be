"""What is known of jobs and of their files. Nothing is changed here."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from pacs.instance import Instance
from pacs.queue import tables
from pacs.queue.database import Database
from pacs.queue.encryption import Cipher
from pacs.queue.file_store import Spool
from pacs.queue.incoming import Incoming, Known, content_digest
from pacs.queue.job import DONE, OPEN, Job, JobState
from pacs.queue.job_rows import found, waits_for_earlier
from pacs.queue.owner import study_id
from pacs.queue.study_rows import Relations, predecessor, relations, versions


def utc_now() -> datetime:
    return datetime.now(UTC)


class KnownJobs:
    """Safe to use from any thread, and from any process that has the same database and key.

    Raises, from every method: JobsUnavailableError; and where bytes are read, SealError if they are damaged.
    """

    def __init__(self, address: str, cipher: Cipher, max_bytes: int, clock: Callable[[], datetime] = utc_now) -> None:
        """Open the database at `address`. `max_bytes` is the limit of what has come of studies that are not dead, and
        as much again of dead ones.

        Raises:
            ConfigurationError: the address is none, or a newer version has written there.
            SealError: what is there was sealed with another key.
        """
        self._database = Database(address, cipher)
        self._incoming, self._results = Incoming(cipher), Spool(cipher)
        self._cipher, self._max_bytes, self._clock = cipher, max_bytes, clock

    def find(self, job_id: str) -> Job | None:
        with self._database.reading() as connection:
            return next(iter(found(connection, id=job_id)), None)

    def latest(self, limit: int, state: JobState | None = None, study_uid: str | None = None) -> list[Job]:
        """The latest first, of that state or study if one is given."""
        with self._database.reading() as connection:
            return found(connection, limit, state=state, study_uid=study_uid)

    def counts(self) -> dict[JobState, int]:
        """Jobs in each state, 0 where there is none."""
        state = tables.jobs.c.state
        with self._database.reading() as connection:
            rows = connection.execute(select(state, func.count()).group_by(state)).all()
        return dict.fromkeys(JobState, 0) | {row[0]: row[1] for row in rows}

    def overdue(self) -> timedelta:
        """How long ago the earliest attempt was due, or the lease of a running one ended; 0 where none has been."""
        query = select(func.min(tables.jobs.c.due)).where(tables.jobs.c.state.in_(OPEN), ~waits_for_earlier())
        with self._database.reading() as connection:
            due: datetime | None = connection.execute(query).scalar()
        return max(self._clock() - due, timedelta()) if due else timedelta()

    def left_alone(self) -> dict[str, int]:
        """How many instances were accepted and not analyzed, by reason."""
        table = tables.left_alone
        with self._database.reading() as connection:
            rows = connection.execute(select(table.c.reason, table.c.instances).order_by(table.c.reason)).all()
        return {row.reason: row.instances for row in rows}

    def refusals(self) -> dict[str, int]:
        """How many instances were refused, by reason."""
        table = tables.refusals
        with self._database.reading() as connection:
            rows = connection.execute(select(table.c.reason, func.sum(table.c.count)).group_by(table.c.reason)).all()
        return {row[0]: int(row[1]) for row in rows}

    def relations(self, jobs: Sequence[Job]) -> list[Relations]:
        """What each is among the others of its study."""
        with self._database.reading() as connection:
            return [relations(connection, job) for job in jobs]

    def stored_bytes(self) -> int:
        """Of the radiographs that are here, sealed; results do not count."""
        with self._database.reading() as connection:
            return self._incoming.bytes(connection)

    def known(self, job: Job) -> list[Known]:
        """The radiographs of a job's study up to its version, in the order in which they came."""
        with self._database.reading() as connection:
            return self._incoming.all_of(connection, job.study_id, job.version)

    def instance(self, known: Known) -> Instance | None:
        """One of them with its bytes; None where these are gone."""
        with self._database.reading() as connection:
            data = self._incoming.data(connection, known.number)
        return None if data is None else replace(known.instance, data=data)

    def earlier_content(self, study_uid: str, instance_uid: str) -> bytes | None:
        """The file of that UID in that study, if it is here."""
        with self._database.reading() as connection:
            known = self._incoming.find(connection, study_id(self._cipher, study_uid), instance_uid)
            return None if known is None else self._incoming.data(connection, known.number)

    def instances(self, job_id: str) -> Iterator[Instance]:
        """What has come of a job's study up to its version, in order, one in memory at a time; not what is gone."""
        job = self.find(job_id)
        for known in [] if job is None else self.known(job):
            if (instance := self.instance(known)) is not None:
                yield instance

    def results(self, job_id: str) -> list[Instance]:
        """Those of a job; once an archive has them, their data is empty here."""
        with self._database.reading() as connection:
            return self._results.all_of(connection, job_id)

    def proofs(self, instance_uid: str) -> set[bytes]:
        """What was given as proof of a result of that UID, by whichever attempt made one."""
        with self._database.reading() as connection:
            return self._results.proofs(connection, instance_uid)

    def basis(self, job: Job, parts: Sequence[str]) -> str:
        """A keyed digest of what the answer of a job follows from."""
        return self._cipher.digest("basis", job.study_id, *parts).hex()

    def seed(self, basis: str, replaced: Sequence[Instance]) -> bytes:
        """What the UIDs of an answer are made of; nobody without the key can work it out."""
        return self._cipher.digest("seed", basis, *(each.instance_uid for each in replaced))

    def digest(self, data: bytes) -> bytes:
        """Of the content of a DICOM file, as `Known` has it."""
        return content_digest(self._cipher, data)

    def replaced_by(self, job: Job, basis: str) -> list[Instance]:
        """The results, without data, that an answer of that basis takes the place of; none where it is the first."""
        with self._database.reading() as connection:
            earlier = [each for each in versions(connection, job.study_id) if each.version < job.version]
            replaced = predecessor(earlier, basis)
            return [] if replaced is None else self._results.references(connection, replaced.id)

    def kept_results(self, study_uid: str, *, earlier: bool = False) -> list[Instance]:
        """Those of a study that no archive is to have: of its latest answer, or of the `earlier` ones, too."""
        with self._database.reading() as connection:
            done = [job for job in found(connection, study_uid=study_uid) if job.state in DONE]
            done.sort(key=lambda job: job.version, reverse=True)
            kept = [job for job in (done if earlier else done[:1]) if job.state == JobState.KEPT]
            return [result for job in kept for result in self._results.all_of(connection, job.id)]

    def answer(self, job_id: str) -> str | None:
        """What was given to `keep_results` beside the results."""
        query = select(tables.answers.c.sealed).where(tables.answers.c.job_id == job_id)
        with self._database.reading() as connection:
            sealed = connection.execute(query).scalar()
        return None if sealed is None else self._cipher.decrypt(sealed, f"answer {job_id}").decode()

    def close(self) -> None:
        self._database.close()
