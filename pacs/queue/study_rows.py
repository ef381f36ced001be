"""Rows of studies: whose each is, and its versions; within the transaction that is given."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Row, select, update

from pacs.queue import tables
from pacs.queue.database import Database
from pacs.queue.encryption import Cipher
from pacs.queue.errors import OtherPatientError
from pacs.queue.job import Job
from pacs.queue.owner import Owner, study_id

ID_DIGITS = 32


@dataclass(frozen=True)
class Study:
    """A row of the table of studies.

    Attributes:
        owner: whose it is; None until that is known.
    """

    id: str
    study_uid: str
    owner: Owner | None


@dataclass(frozen=True)
class Relations:
    """A job among the others of its study: ids of the answers that it replaces and is replaced by, and how many
    instances were refused in the study, by reason.
    """

    supersedes: str | None
    superseded_by: str | None
    refused: dict[str, int]


def job_id(cipher: Cipher, study: str, version: int) -> str:
    return cipher.digest("job", study, str(version)).hex()[:ID_DIGITS]


def opened(connection: Connection, database: Database, cipher: Cipher, study_uid: str) -> Study:
    """The study's row, made where it is missing; nobody else changes the study until this transaction ends."""
    table = tables.studies
    row = {"id": study_id(cipher, study_uid), "study_uid": study_uid}
    connection.execute(database.insert_missing(table).values(row))
    return _study(connection.execute(select(table).where(table.c.study_uid == study_uid).with_for_update()).one())


def locked_study(connection: Connection, study: str) -> Study:
    table = tables.studies
    return _study(connection.execute(select(table).where(table.c.id == study).with_for_update()).one())


def claim(connection: Connection, study: Study, owner: Owner) -> Study:
    """Make the study that patient's, who is its first.

    Raises:
        OtherPatientError: it is another's.
    """
    if study.owner is not None and not study.owner.is_same_patient(owner):
        raise OtherPatientError("The study is another patient's.")
    whole = owner if study.owner is None else study.owner.completed_by(owner)
    if whole != study.owner:
        connection.execute(update(tables.studies).where(tables.studies.c.id == study.id).values(owner=whole.text()))
    return replace(study, owner=whole)


def versions(connection: Connection, study: str) -> list[Job]:
    """All jobs of a study, the latest first."""
    query = select(tables.jobs).where(tables.jobs.c.study_id == study).order_by(tables.jobs.c.version.desc())
    return [Job(**row._mapping) for row in connection.execute(query)]


def predecessor(earlier: Sequence[Job], basis: str) -> Job | None:
    """The latest answer that differs from one of that basis; `earlier` has the latest first."""
    answered = [job for job in earlier if job.basis is not None]
    # The same answer once more replaces what the first of its like has replaced.
    while answered and answered[0].basis == basis:
        answered = answered[1:]
    return answered[0] if answered else None


def relations(connection: Connection, job: Job) -> Relations:
    others = [each for each in versions(connection, job.study_id) if each.basis is not None]
    before = [each.id for each in others if each.version < job.version]
    after = [each.id for each in others if each.version > job.version]
    table = tables.refusals
    refused = connection.execute(select(table.c.reason, table.c.count).where(table.c.study_id == job.study_id))
    return Relations(
        before[0] if before and job.basis is not None else None,
        after[-1] if after else None,
        {row[0]: row[1] for row in refused},
    )


def count_refusal(connection: Connection, database: Database, study: str, reason: str) -> None:
    table = tables.refusals
    row = {"study_id": study, "reason": reason, "count": 0}
    connection.execute(database.insert_missing(table).values(row))
    mine = (table.c.study_id == study) & (table.c.reason == reason)
    connection.execute(update(table).where(mine).values(count=table.c.count + 1))


def _study(row: Row[tuple[object, ...]]) -> Study:
    return Study(row.id, row.study_uid, None if row.owner is None else Owner.from_text(row.owner))
