"""Rows of the table of jobs; within the transaction that is given."""

from dataclasses import asdict

from sqlalchemy import ColumnElement, Connection, exists, select, update

from pacs.queue import tables
from pacs.queue.errors import LeaseLostError
from pacs.queue.job import OPEN, Job, JobState


def locked(connection: Connection, job_id: str) -> Job | None:
    """The job, which nobody else changes until this transaction ends."""
    row = connection.execute(select(tables.jobs).where(tables.jobs.c.id == job_id).with_for_update()).first()
    return None if row is None else Job(**row._mapping)


def owned(connection: Connection, job: Job) -> Job:
    """The job as it is now, locked. Raises LeaseLostError if the lease that `job` was got by is not the latest."""
    current = locked(connection, job.id)
    if current is None or current.state != JobState.RUNNING or current.lease_number != job.lease_number:
        raise LeaseLostError(f"Job {job.id} is no longer this worker's.")
    return current


def added(connection: Connection, job: Job) -> Job:
    connection.execute(tables.jobs.insert().values(asdict(job)))
    return job


def saved(connection: Connection, job: Job) -> Job:
    connection.execute(update(tables.jobs).where(tables.jobs.c.id == job.id).values(asdict(job)))
    return job


def found(connection: Connection, limit: int | None = None, **wanted: object) -> list[Job]:
    """Those whose columns have the wanted values; None wants nothing."""
    table = tables.jobs
    fits = [table.c[name] == value for name, value in wanted.items() if value is not None]
    query = select(table).where(*fits).order_by(table.c.created.desc(), table.c.version.desc(), table.c.id)
    return [Job(**row._mapping) for row in connection.execute(query.limit(limit))]


def waits_for_earlier() -> ColumnElement[bool]:
    """Whether an earlier version of a job's study is still on its way."""
    table, earlier = tables.jobs, tables.jobs.alias()
    return exists().where(
        earlier.c.study_id == table.c.study_id, earlier.c.version < table.c.version, earlier.c.state.in_(OPEN)
    )
