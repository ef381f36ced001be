"""Reads and writes the queue's rows of jobs, studies and counters within a given transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from sqlalchemy import Column, ColumnElement, Connection, Row, exists, func, select, update

from pacs.queue import tables
from pacs.queue.database import Database
from pacs.queue.encryption import Cipher
from pacs.queue.errors import LeaseLostError, OtherPatientError
from pacs.queue.job import OPEN, Job, JobState
from pacs.queue.patient_digests import PatientDigests, study_id

ID_DIGITS = 32
"""Hexadecimal digits of a job's ID: 128 bits, so that IDs cannot be guessed."""


@dataclass(frozen=True)
class Study:
    """A study, as read from its row and locked in a transaction; `patient` is None until the patient is known."""

    id: str
    study_uid: str
    patient: PatientDigests | None


@dataclass(frozen=True)
class Relations:
    """A job's place among the rows of the other jobs of its study.

    Attributes:
        supersedes: ID of the job whose results this job's results replace.
        superseded_by: ID of the job whose results replace this job's results.
        refused: number of instances refused in the study, by reason.
    """

    supersedes: str | None
    superseded_by: str | None
    refused: dict[str, int]


def lock_job(connection: Connection, job_id: str) -> Job | None:
    """Read the row of a job and lock it until the transaction ends; None if there is no such job."""
    row = connection.execute(select(tables.jobs).where(tables.jobs.c.id == job_id).with_for_update()).first()
    return None if row is None else Job(**row._mapping)


def require_lease(connection: Connection, job: Job) -> Job:
    """Lock the row of a job and return the job as it is now.

    Raises:
        LeaseLostError: the lease of `job` is not the latest.
    """
    current = lock_job(connection, job.id)
    if current is None or current.state != JobState.RUNNING or current.lease_number != job.lease_number:
        raise LeaseLostError(f"Job {job.id} is no longer leased to this worker.")
    return current


def insert_job(connection: Connection, job: Job) -> Job:
    """Insert the row of a new job and return the job."""
    connection.execute(tables.jobs.insert().values(asdict(job)))
    return job


def update_job(connection: Connection, job: Job) -> Job:
    """Write all columns of a job's row and return the job."""
    connection.execute(update(tables.jobs).where(tables.jobs.c.id == job.id).values(asdict(job)))
    return job


def select_jobs(connection: Connection, limit: int | None = None, **filters: object) -> list[Job]:
    """Read the rows of jobs whose columns equal the filters, newest first; a filter of None is ignored."""
    table = tables.jobs
    conditions = [table.c[name] == value for name, value in filters.items() if value is not None]
    query = select(table).where(*conditions).order_by(table.c.created.desc(), table.c.version.desc(), table.c.id)
    return [Job(**row._mapping) for row in connection.execute(query.limit(limit))]


def select_versions(connection: Connection, study: str) -> list[Job]:
    """Read the rows of all jobs of a study, the latest version first."""
    query = select(tables.jobs).where(tables.jobs.c.study_id == study).order_by(tables.jobs.c.version.desc())
    return [Job(**row._mapping) for row in connection.execute(query)]


def select_relations(connection: Connection, job: Job) -> Relations:
    """Read a job's place among the other jobs of its study from their rows."""
    others = [each for each in select_versions(connection, job.study_id) if each.basis is not None]
    before = [each.id for each in others if each.version < job.version]
    after = [each.id for each in others if each.version > job.version]
    refused = count_by_reason(connection, tables.refusals.c.count, tables.refusals.c.study_id == job.study_id)
    return Relations(
        before[0] if before and job.basis is not None else None,
        after[-1] if after else None,
        refused,
    )


def waits_for_earlier_version() -> ColumnElement[bool]:
    """SQL condition for the row of a job: an earlier version of its study is still open."""
    table, earlier = tables.jobs, tables.jobs.alias()
    return exists().where(
        earlier.c.study_id == table.c.study_id, earlier.c.version < table.c.version, earlier.c.state.in_(OPEN)
    )


def job_id(cipher: Cipher, study: str, version: int) -> str:
    """Return the ID in the row of a study's job, a keyed digest of the study and the version."""
    return cipher.digest("job", study, str(version)).hex()[:ID_DIGITS]


def find_predecessor(earlier: Sequence[Job], basis: str) -> Job | None:
    """Return the job in the study's rows whose results new ones with `basis` replace; `earlier` has the latest first.

    Jobs with the same basis are skipped: identical results replace the same job as the first of them did.
    """
    answered = [job for job in earlier if job.basis is not None]
    while answered and answered[0].basis == basis:
        answered = answered[1:]
    return answered[0] if answered else None


def lock_or_create_study(connection: Connection, database: Database, cipher: Cipher, study_uid: str) -> Study:
    """Read the row of a study and lock it until the transaction ends; insert the row if it is missing."""
    table = tables.studies
    row = {"id": study_id(cipher, study_uid), "study_uid": study_uid}
    connection.execute(database.insert_missing(table).values(row))
    return _study(connection.execute(select(table).where(table.c.study_uid == study_uid).with_for_update()).one())


def lock_study(connection: Connection, study: str) -> Study:
    """Read the row of the study with an ID and lock it until the transaction ends."""
    table = tables.studies
    return _study(connection.execute(select(table).where(table.c.id == study).with_for_update()).one())


def assign_patient(connection: Connection, study: Study, patient: PatientDigests) -> Study:
    """Write a patient into the row of a study, or add missing attributes to the patient in it.

    Raises:
        OtherPatientError: the study belongs to another patient.
    """
    if study.patient is not None and not study.patient.is_same_patient(patient):
        raise OtherPatientError("The study belongs to another patient.")
    merged = patient if study.patient is None else study.patient.merged_with(patient)
    if merged != study.patient:
        is_study = tables.studies.c.id == study.id
        connection.execute(update(tables.studies).where(is_study).values(owner=merged.to_text()))
    return replace(study, patient=merged)


def increment(
    connection: Connection,
    database: Database,
    counter: Column[int],
    key: Mapping[str, object],
    by: int = 1,
    **columns: object,
) -> None:
    """Add `by` to a counter in the row of `key`, and set other columns; insert the row if it is missing."""
    table = counter.table
    connection.execute(database.insert_missing(table).values({**key, counter.name: 0, **columns}))
    is_row = [table.c[name] == value for name, value in key.items()]
    connection.execute(update(table).where(*is_row).values({counter.name: counter + by, **columns}))


def count_by_reason(connection: Connection, counter: Column[int], *conditions: ColumnElement[bool]) -> dict[str, int]:
    """Return, in a given transaction, the sum of a counter over the rows of each reason, in alphabetical order."""
    reason = counter.table.c.reason
    query = select(reason, func.sum(counter)).where(*conditions).group_by(reason).order_by(reason)
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def _study(row: Row[tuple[object, ...]]) -> Study:
    return Study(row.id, row.study_uid, None if row.owner is None else PatientDigests.from_text(row.owner))
