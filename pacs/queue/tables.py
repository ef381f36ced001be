"""The tables of the queue, for SQLite and PostgreSQL."""

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

from pacs.queue.job import JobState

VERSION = 2
"""Version of this layout. Increase it with every change, and add the step to `pacs.queue.migrations`."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Moment(TypeDecorator[datetime]):
    """The column type of times in the queue's tables: UTC in microseconds since 1970.

    Both databases order such numbers alike and return them exactly.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Convert a datetime for a column of the queue's tables."""
        return None if value is None else (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Convert a number from a column of the queue's tables to a datetime."""
        return None if value is None else EPOCH + value * MICROSECOND


def _values(states: type[JobState]) -> list[str]:
    return [state.value for state in states]


metadata = MetaData()

layout = Table(
    "layout",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("check", LargeBinary, nullable=False),
)
"""One row: the version of the layout, and a known word that is encrypted with the same key as all data."""

studies = Table(
    "studies",
    metadata,
    Column("id", Text, primary_key=True),
    Column("study_uid", Text, nullable=False, unique=True),
    Column("owner", Text),
)
"""One row for each Study Instance UID; `owner` has the digests of its patient, NULL until the patient is known."""

refusals = Table(
    "refusals",
    metadata,
    Column("study_id", Text, ForeignKey(studies.c.id), primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
)
"""Number of instances that were refused in a study, by reason."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("study_id", Text, ForeignKey(studies.c.id), nullable=False, index=True),
    Column("study_uid", Text, nullable=False, index=True),
    Column("version", Integer, nullable=False),
    Column("checkpoint", Text, nullable=False),
    Column("archive", Text),
    Column("fetched_from", Text),
    Column("source", Text, nullable=False),
    Column("state", Enum(JobState, native_enum=False, length=16, values_callable=_values), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", Moment, nullable=False),
    Column("reason", Text),
    Column("created", Moment, nullable=False),
    Column("opened", Moment, nullable=False),
    Column("changed", Moment, nullable=False),
    Column("answered", Moment),
    Column("basis", Text),
    Column("left_out", Text),
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
"""The FHIR report of each job, encrypted."""

left_alone = Table(
    "left_alone",
    metadata,
    Column("reason", Text, primary_key=True),
    Column("instances", BigInteger, nullable=False),
    Column("latest", Moment, nullable=False),
)
"""Number of instances that were accepted but not analyzed, by reason, and the time of the latest arrival."""

instances = Table(
    "instances",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("study_id", Text, ForeignKey(studies.c.id), nullable=False),
    Column("version", Integer, nullable=False),
    Column("judged", Integer, nullable=False),
    Column("series_uid", Text, nullable=False),
    Column("instance_uid", Text, nullable=False),
    Column("sop_class_uid", Text, nullable=False),
    Column("owner", Text),
    Column("digest", LargeBinary),
    Column("came", Moment, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sealed", LargeBinary),
    UniqueConstraint("study_id", "instance_uid"),
)
Index(
    "instances_here",
    instances.c.came,
    instances.c.size,
    sqlite_where=instances.c.size > 0,
    postgresql_where=instances.c.size > 0,
)
"""Radiographs of studies, in the order of arrival. `version` is the first version that includes them, and `judged` the
latest that examined them. `sealed` is the encrypted file: NULL once purged, or if only an archive has the file.
"""

results = Table(
    "results",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("job_id", Text, ForeignKey(jobs.c.id), nullable=False),
    Column("series_uid", Text, nullable=False),
    Column("instance_uid", Text, nullable=False),
    Column("sop_class_uid", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sealed", LargeBinary),
    Column("proof", LargeBinary),
    UniqueConstraint("job_id", "instance_uid"),
)
"""Results of jobs as DICOM files. `sealed` is the encrypted file, NULL once an archive has it; `proof` is its
fingerprint, which stays.
"""


def instance_purpose(study_id: str, instance_uid: str) -> str:
    """Return the purpose for which a radiograph is encrypted: its own row of the table `instances`.

    A radiograph encrypted for it cannot be decrypted in another row or table.
    """
    return f"instance {study_id} {instance_uid}"
