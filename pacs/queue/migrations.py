"""Migrates the queue's database from an older layout to the current one when it is opened.

Layout 1 had one job for each study and checkpoint, deleted the radiographs of a study with its answer, and stored
nothing about patients. Its jobs become versions of their studies in the order of their creation.
"""

from sqlalchemy import BigInteger, Column, Connection, LargeBinary, MetaData, Table, Text, select, text, update

from pacs.queue import tables
from pacs.queue.encryption import Cipher
from pacs.queue.patient_digests import study_id

ADDED_COLUMNS = (
    "ALTER TABLE jobs ADD COLUMN study_id TEXT",
    "ALTER TABLE jobs ADD COLUMN version INTEGER",
    "ALTER TABLE jobs ADD COLUMN fetched_from TEXT",
    "ALTER TABLE jobs ADD COLUMN opened BIGINT",
    "ALTER TABLE jobs ADD COLUMN answered BIGINT",
    "ALTER TABLE jobs ADD COLUMN basis TEXT",
    "ALTER TABLE jobs ADD COLUMN left_out TEXT",
    "CREATE INDEX ix_jobs_study_id ON jobs (study_id)",
)
BACKFILL = (
    "UPDATE jobs SET opened = created",
    "UPDATE jobs SET fetched_from = archive WHERE source = 'pull'",
    "UPDATE jobs SET answered = changed WHERE state IN ('delivered', 'kept', 'refused')",
    "UPDATE jobs SET answered = changed, basis = '1 ' || id WHERE id IN (SELECT job_id FROM results)",
)
"""SQL that fills the new columns. The basis is unique for each job, so later results replace those of layout 1."""

incoming = Table(
    "incoming",
    MetaData(),
    Column("number", BigInteger),
    Column("job_id", Text),
    Column("series_uid", Text),
    Column("instance_uid", Text),
    Column("sop_class_uid", Text),
    Column("size", BigInteger),
    Column("sealed", LargeBinary),
)
"""The table of radiographs in layout 1."""


def migrate(connection: Connection, cipher: Cipher) -> None:
    """Migrate the queue's database from layout 1 to 2 within the given transaction."""
    for statement in ADDED_COLUMNS:
        connection.execute(text(statement))
    proof = "BYTEA" if connection.dialect.name == "postgresql" else "BLOB"
    connection.execute(text(f"ALTER TABLE results ADD COLUMN proof {proof}"))
    for table in (tables.studies, tables.refusals, tables.instances):
        table.create(connection)
    for statement in BACKFILL:
        connection.execute(text(statement))
    _make_versions(connection, cipher)
    _move_files(connection, cipher)
    incoming.drop(connection)
    connection.execute(update(tables.layout).values(version=2))


def _make_versions(connection: Connection, cipher: Cipher) -> None:
    jobs = tables.jobs
    latest: dict[str, int] = {}
    for row in connection.execute(select(jobs.c.id, jobs.c.study_uid).order_by(jobs.c.created, jobs.c.id)).all():
        study = study_id(cipher, row.study_uid)
        if study not in latest:
            connection.execute(tables.studies.insert().values(id=study, study_uid=row.study_uid))
        latest[study] = latest.get(study, 0) + 1
        connection.execute(update(jobs).where(jobs.c.id == row.id).values(study_id=study, version=latest[study]))


def _move_files(connection: Connection, cipher: Cipher) -> None:
    """Encrypt the radiographs for their new table, with one file in memory at a time."""
    jobs, files = tables.jobs, tables.instances
    for number in connection.execute(select(incoming.c.number).order_by(incoming.c.number)).scalars().all():
        row = connection.execute(select(incoming).where(incoming.c.number == number)).one()
        job = connection.execute(
            select(jobs.c.study_id, jobs.c.version, jobs.c.created).where(jobs.c.id == row.job_id)
        ).one()
        same = (files.c.study_id == job.study_id) & (files.c.instance_uid == row.instance_uid)
        if connection.execute(select(files.c.number).where(same)).first() is not None:
            continue  # the file was also stored for another checkpoint's job
        data = cipher.decrypt(row.sealed, f"incoming {row.job_id} {row.instance_uid}")
        encrypted = cipher.encrypt(data, tables.instance_purpose(job.study_id, row.instance_uid))
        kept = {name: row._mapping[name] for name in ("series_uid", "instance_uid", "sop_class_uid")}
        place = {"study_id": job.study_id, "version": job.version, "judged": 0, "came": job.created}
        connection.execute(files.insert().values(kept | place | {"size": len(encrypted), "sealed": encrypted}))
