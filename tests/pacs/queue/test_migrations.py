"""A database with the earlier layout is migrated without losing files or answers; on both databases."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, create_engine, inspect, text

from pacs.queue.encryption import Cipher
from pacs.queue.errors import OtherPatientError, SealError
from pacs.queue.job import JobState
from pacs.queue.jobs import Jobs
from tests.pacs.conftest import LIMIT, Place
from tests.pacs.studies import ANSWER, ARCHIVE, PATIENT, STRANGER, file, keep, lease_due, pair, send

OLD_LAYOUT = """
CREATE TABLE layout (version INTEGER NOT NULL, "check" {bytes} NOT NULL, PRIMARY KEY (version));
CREATE TABLE jobs (id TEXT NOT NULL, study_uid TEXT NOT NULL, checkpoint TEXT NOT NULL, archive TEXT,
    source TEXT NOT NULL, state VARCHAR(16) NOT NULL, attempts INTEGER NOT NULL, due BIGINT NOT NULL, reason TEXT,
    created BIGINT NOT NULL, changed BIGINT NOT NULL, instances INTEGER NOT NULL, owner TEXT,
    lease_number BIGINT NOT NULL, PRIMARY KEY (id));
CREATE INDEX jobs_by_due ON jobs (state, due);
CREATE INDEX ix_jobs_study_uid ON jobs (study_uid);
CREATE TABLE answers (job_id TEXT NOT NULL, sealed {bytes} NOT NULL, PRIMARY KEY (job_id),
    FOREIGN KEY(job_id) REFERENCES jobs (id));
CREATE TABLE incoming (number {number}, job_id TEXT NOT NULL, series_uid TEXT NOT NULL, instance_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL, size BIGINT NOT NULL, sealed {bytes}, PRIMARY KEY (number),
    UNIQUE (job_id, instance_uid), FOREIGN KEY(job_id) REFERENCES jobs (id));
CREATE TABLE results (number {number}, job_id TEXT NOT NULL, series_uid TEXT NOT NULL, instance_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL, size BIGINT NOT NULL, sealed {bytes}, PRIMARY KEY (number),
    UNIQUE (job_id, instance_uid), FOREIGN KEY(job_id) REFERENCES jobs (id));
"""
"""The tables of layout 1, for both databases."""
TYPES = {
    "sqlite": {"bytes": "BLOB", "number": "INTEGER NOT NULL"},
    "postgresql": {"bytes": "BYTEA", "number": "BIGSERIAL NOT NULL"},
}
START = datetime(2030, 1, 1, tzinfo=UTC)
JOB = (
    "INSERT INTO jobs VALUES (:id, :study, :checkpoint, :archive, :source, :state, 0, :due, NULL, :created, :created, "
    "1, NULL, 0)"
)
FILE = (
    "INSERT INTO {table} (job_id, series_uid, instance_uid, sop_class_uid, size, sealed) "
    "VALUES (:job_id, :series_uid, :instance_uid, :sop_class_uid, :size, :sealed)"
)


def microseconds(seconds: float) -> int:
    return (START + timedelta(seconds=seconds) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.fixture
def old(place: Place) -> Place:
    """A database of layout 1 with studies in every state; 1.2.4 has jobs of two checkpoints."""
    cipher = Cipher.from_key_file(place.key)
    with create_engine(place.address).begin() as connection:
        for statement in OLD_LAYOUT.format(**TYPES[connection.dialect.name]).split(";"):
            if statement.strip():
                connection.execute(text(statement))
        check = cipher.encrypt(b"osteon", "check of the key")
        connection.execute(text("INSERT INTO layout VALUES (1, :check)"), {"check": check})
        for number, (study, state) in enumerate(
            [
                ("1.2.3", "waiting"),
                ("1.2.4", "running"),
                ("1.2.4", "waiting"),
                ("1.2.5", "kept"),
                ("1.2.6", "delivered"),
            ]
        ):
            _write_job(connection, cipher, number, study, state)
    return place


def _write_job(connection: Connection, cipher: Cipher, number: int, study: str, state: str) -> None:
    job = {"id": f"old-{number}", "study": study, "checkpoint": f"net-{number}", "archive": ARCHIVE, "source": "stow"}
    times = {"due": microseconds(number), "created": microseconds(number)}
    connection.execute(text(JOB), job | times | {"state": state})
    files = [("incoming", file(1))] if state in ("waiting", "running") else [("results", each) for each in pair()]
    for table, each in files:
        encrypted: bytes | None = cipher.encrypt(each.data, f"{table} {job['id']} {each.instance_uid}")
        if state == "delivered":
            encrypted = None
        names = {name: getattr(each, name) for name in ("series_uid", "instance_uid", "sop_class_uid")}
        row = names | {"job_id": job["id"], "size": len(encrypted or b""), "sealed": encrypted}
        connection.execute(text(FILE.format(table=table)), row)
    if state in ("kept", "delivered"):
        encrypted = cipher.encrypt(ANSWER.encode(), f"answer {job['id']}")
        connection.execute(text("INSERT INTO answers VALUES (:id, :sealed)"), {"id": job["id"], "sealed": encrypted})


def by_study(jobs: Jobs) -> list[tuple[str, int, str, str]]:
    found = [(job.study_uid, job.version, job.id, str(job.state)) for job in jobs.repository.latest(99)]
    return sorted(found)


def test_jobs_of_the_earlier_layout_go_on(old: Place) -> None:
    jobs = old.jobs()
    assert by_study(jobs) == [
        ("1.2.3", 1, "old-0", "waiting"),
        ("1.2.4", 1, "old-1", "running"),
        ("1.2.4", 2, "old-2", "waiting"),
        ("1.2.5", 1, "old-3", "kept"),
        ("1.2.6", 1, "old-4", "delivered"),
    ]
    old.clock.advance(3600)
    done = []
    while (job := jobs.lease("a", timedelta(seconds=30))) is not None:
        assert list(jobs.repository.instances(job.id)) == [file(1)]
        keep(jobs, job)
        done.append(jobs.finish(job, JobState.KEPT).id)
    assert sorted(done) == ["old-0", "old-1", "old-2"]


def test_answers_of_the_earlier_layout_are_there_and_are_superseded(old: Place) -> None:
    jobs = old.jobs()
    assert (jobs.repository.kept_results("1.2.5"), jobs.repository.answer("old-3")) == (pair(), ANSWER)
    assert [each.instance_uid for each in jobs.repository.results("old-4")] == [each.instance_uid for each in pair()]
    for study, earlier in {"1.2.5": "old-3", "1.2.6": "old-4"}.items():
        send(jobs, 2, study)
        old.clock.advance(3600)
        while (job := lease_due(jobs)).study_uid != study:
            jobs.finish(job, JobState.REFUSED)
        assert (job.version, [each.data for each in jobs.repository.superseded_results(job, "new")]) == (2, [b"", b""])
        keep(jobs, job)
        assert [each.supersedes for each in jobs.repository.relations([jobs.finish(job, JobState.KEPT)])] == [earlier]


def test_study_of_the_earlier_layout_is_whose_comes_next(old: Place) -> None:
    jobs = old.jobs()
    assert send(jobs, 1, "1.2.3", patient=PATIENT).instances == 1
    with pytest.raises(OtherPatientError):
        send(jobs, 2, "1.2.3", patient=STRANGER)


def test_database_is_brought_up_once_and_the_earlier_table_is_gone(old: Place) -> None:
    for _ in range(3):
        old.jobs()
    assert "incoming" not in inspect(create_engine(old.address)).get_table_names()
    assert len(old.jobs().repository.latest(99)) == 5


def test_upgrade_with_another_key_changes_nothing(old: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(SealError, match="another key"):
        Jobs(old.address, Cipher.from_key_file(tmp_path_factory.mktemp("other") / "key"), LIMIT)
    assert len(old.jobs().repository.latest(99)) == 5
