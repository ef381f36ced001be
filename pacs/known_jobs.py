"""A database of jobs in, what is known of them and of their files out."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from pacs import tables
from pacs.database import Database
from pacs.job import OPEN, Instance, Job, JobState
from pacs.job_rows import found
from pacs.sealing import Seal
from pacs.spool import Spool


def utc_now() -> datetime:
    return datetime.now(UTC)


class KnownJobs:
    """Safe to use from any thread, and from any process that has the same database and key.

    Raises, from every method: JobsUnavailableError; and where bytes are read, SealError if they are damaged.
    """

    def __init__(self, address: str, seal: Seal, max_bytes: int, clock: Callable[[], datetime] = utc_now) -> None:
        """Open the database at `address`. `max_bytes` is the limit of what has come and is not final.

        Raises:
            ConfigurationError: the address is none, or a newer version has written there.
            SealError: what is there was sealed with another key.
        """
        self._database = Database(address, seal)
        self._incoming, self._results = Spool(tables.incoming, seal), Spool(tables.results, seal)
        self._seal, self._max_bytes, self._clock = seal, max_bytes, clock

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
        query = select(func.min(tables.jobs.c.due)).where(tables.jobs.c.state.in_(OPEN))
        with self._database.reading() as connection:
            due: datetime | None = connection.execute(query).scalar()
        return max(self._clock() - due, timedelta()) if due else timedelta()

    def left_alone(self) -> dict[str, int]:
        """How many instances were accepted and not analyzed, by reason."""
        table = tables.left_alone
        with self._database.reading() as connection:
            rows = connection.execute(select(table.c.reason, table.c.instances).order_by(table.c.reason)).all()
        return {row.reason: row.instances for row in rows}

    def stored_bytes(self) -> int:
        """Of what has come and is not final, sealed; results do not count."""
        with self._database.reading() as connection:
            return self._incoming.bytes(connection)

    def instances(self, job_id: str) -> Iterator[Instance]:
        """What has come, in order, one in memory at a time; none once the job is final."""
        number = 0
        while True:
            with self._database.reading() as connection:
                next_one = self._incoming.after(connection, job_id, number)
            if next_one is None:
                return
            number, instance = next_one
            yield instance

    def results(self, job_id: str) -> list[Instance]:
        """Those of a job; once an archive has them, their data is empty here."""
        with self._database.reading() as connection:
            return self._results.all_of(connection, job_id)

    def kept_results(self, study_uid: str) -> list[Instance]:
        """Those of a study, of any checkpoint, that no archive is to have."""
        with self._database.reading() as connection:
            kept = [job for job in found(connection, study_uid=study_uid) if job.state == JobState.KEPT]
            return [result for job in kept for result in self._results.all_of(connection, job.id)]

    def answer(self, job_id: str) -> str | None:
        """What was given to `keep_results` beside the results."""
        query = select(tables.answers.c.sealed).where(tables.answers.c.job_id == job_id)
        with self._database.reading() as connection:
            sealed = connection.execute(query).scalar()
        return None if sealed is None else self._seal.unseal(sealed, f"answer {job_id}").decode()

    def close(self) -> None:
        self._database.close()
