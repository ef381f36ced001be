"""The tables that hold studies on their way, for SQLite and PostgreSQL alike."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

from pacs.job import JobState

VERSION = 1
"""Of this layout; a change of it needs a step that brings the older one up."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Moment(TypeDecorator[datetime]):
    """A UTC datetime as microseconds since 1970, which both databases compare alike and give back exactly."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else EPOCH + value * MICROSECOND


def _words(states: type[JobState]) -> list[str]:
    return [state.value for state in states]


metadata = MetaData()

layout = Table(
    "layout",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("check", LargeBinary, nullable=False),
)
"""One row: the version, and a known word that is sealed with the key of everything else."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("study_uid", Text, nullable=False, index=True),
    Column("checkpoint", Text, nullable=False),
    Column("archive", Text),
    Column("source", Text, nullable=False),
    Column("state", Enum(JobState, native_enum=False, length=16, values_callable=_words), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", Moment, nullable=False),
    Column("reason", Text),
    Column("created", Moment, nullable=False),
    Column("changed", Moment, nullable=False),
    Column("instances", Integer, nullable=False),
    Column("owner", Text),
    Column("lease_number", BigInteger, nullable=False),
    Index("jobs_by_due", "state", "due"),
)

answers = Table(
    "answers",
    metadata,
    Column("job_id", Text, ForeignKey(jobs.c.id), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)
"""What a job found, for those who ask by HTTP."""


left_alone = Table(
    "left_alone",
    metadata,
    Column("reason", Text, primary_key=True),
    Column("instances", BigInteger, nullable=False),
    Column("latest", Moment, nullable=False),
)
"""How many instances were accepted and not analyzed, for each of a few reasons."""


def _files(name: str) -> Table:
    """DICOM files of jobs in the order in which they came; `sealed` goes when the bytes may."""
    return Table(
        name,
        metadata,
        Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("job_id", Text, ForeignKey(jobs.c.id), nullable=False),
        Column("series_uid", Text, nullable=False),
        Column("instance_uid", Text, nullable=False),
        Column("sop_class_uid", Text, nullable=False),
        Column("size", BigInteger, nullable=False),
        Column("sealed", LargeBinary),
        UniqueConstraint("job_id", "instance_uid"),
    )


incoming = _files("incoming")
results = _files("results")
