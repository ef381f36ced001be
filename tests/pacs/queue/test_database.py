"""Stored data reveals no patient, and an unusable database is refused with a hint what to change."""

import sqlite3
import stat
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from pacs.errors import ConfigurationError
from pacs.queue import tables
from pacs.queue.encryption import Cipher
from pacs.queue.errors import JobsUnavailableError, SealError
from pacs.queue.jobs import Jobs, JobState
from tests.dicom_files import CANARY
from tests.pacs.conftest import LIMIT, Place
from tests.pacs.studies import STUDY, Clock, file, keep, lease_due, pair, send
from tests.postgres import INITDB, Postgres, running_postgres
from tests.tools import needs

pytestmark = pytest.mark.slow

SECRETS = (CANARY.encode(), b"CANARY-4711", b"CANARY-0815", b"19010203")


def at_rest(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("jobs.sqlite*")}


@pytest.mark.parametrize("end", [None, JobState.KEPT, JobState.DELIVERED])
def test_no_byte_of_the_patient_is_in_the_files_of_sqlite(tmp_path: Path, end: JobState | None) -> None:
    place = Place(f"sqlite:///{tmp_path / 'jobs.sqlite'}", tmp_path / "key")
    jobs = place.jobs()
    job = send(jobs)
    assert all(secret in next(jobs.repository.instances(job.id)).data for secret in SECRETS)
    place.clock.advance(2)
    running = lease_due(jobs)
    keep(jobs, running, pair(), f"answer about {CANARY}")
    if end is not None:
        jobs.finish(running, end)
    files = at_rest(tmp_path)
    assert sorted(files) == ["jobs.sqlite", "jobs.sqlite-shm", "jobs.sqlite-wal"]
    assert STUDY.encode() in b"".join(files.values())
    assert [name for name, data in files.items() for secret in SECRETS if secret in data] == []
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in files} == {0o600}


def test_sqlite_is_set_to_outlive_a_power_cut_and_to_overwrite_what_is_deleted(tmp_path: Path) -> None:
    jobs = Place(f"sqlite:///{tmp_path / 'jobs.sqlite'}", tmp_path / "key").jobs()
    names = ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "busy_timeout")
    with jobs._storage.database.reading() as connection:
        set_to = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in names]
    assert set_to == ["wal", 2, 1, 1, 20_000]


def test_another_key_is_refused_at_the_start(place: Place, tmp_path: Path) -> None:
    send(place.jobs())
    with pytest.raises(SealError, match="another key"):
        Jobs(place.address, Cipher.from_key_file(tmp_path / "other"), LIMIT)


def test_bytes_that_were_damaged_or_exchanged_are_refused(place: Place) -> None:
    jobs = place.jobs()
    job, other = send(jobs), send(jobs, study="1.7")
    with create_engine(place.address).begin() as connection:
        query = text(
            "UPDATE instances SET sealed = (SELECT sealed FROM instances WHERE study_id = :a) WHERE study_id = :b"
        )
        connection.execute(query, {"a": job.study_id, "b": other.study_id})
    assert next(jobs.repository.instances(job.id)) == file()
    with pytest.raises(SealError, match="damaged"):
        next(jobs.repository.instances(other.id))


def test_database_of_a_newer_version_is_refused(place: Place) -> None:
    place.jobs()
    with create_engine(place.address).begin() as connection:
        connection.execute(text("UPDATE layout SET version = 3"))
    with pytest.raises(ConfigurationError, match="layout 3, and this program knows 2"):
        place.jobs()


@pytest.mark.parametrize(
    "address",
    ["", "jobs.sqlite", "sqlite://", "sqlite:///:memory:", "mysql://u:s3cret@host/x", "postgresql://u:s3cret@h/x"],
)
def test_address_that_is_no_database_of_ours_is_refused_without_its_password(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"postgresql\+pg8000") as caught:
        Jobs(address, Cipher.from_key_file(tmp_path / "key"), LIMIT)
    assert "s3cret" not in str(caught.value)


def test_sqlite_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written"):
        Jobs(f"sqlite:///{tmp_path / 'no' / 'jobs.sqlite'}", Cipher.from_key_file(tmp_path / "key"), LIMIT)


def test_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"hello" * 1000)
    with pytest.raises(JobsUnavailableError):
        Jobs(f"sqlite:///{tmp_path / 'jobs.sqlite'}", Cipher.from_key_file(tmp_path / "key"), LIMIT)


def test_reading_waits_for_no_writer(tmp_path: Path) -> None:
    jobs = Place(f"sqlite:///{tmp_path / 'jobs.sqlite'}", tmp_path / "key").jobs()
    job = send(jobs)
    writer = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert jobs.repository.find(job.id) == job
    writer.close()


@needs(INITDB)
def test_postgresql_that_goes_and_comes_back_is_unavailable_and_then_as_before(tmp_path: Path) -> None:
    with running_postgres() as server:
        place = Place(server.emptied(), tmp_path / "key", Clock())
        jobs = place.jobs()
        job = send(jobs)
        with pytest.raises(JobsUnavailableError), jobs._storage.database.writing():
            server.stop()  # in the middle of a transaction
        with pytest.raises(JobsUnavailableError):
            jobs.lease("a", place.clock.now - place.clock.now)
        server.start()
        assert jobs.repository.find(job.id) == job
        assert list(jobs.repository.instances(job.id)) == [file()]
        jobs.close()


@needs(INITDB)
def test_postgresql_that_falls_silent_is_unavailable_and_its_late_answers_are_no_others(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs.queue.database.TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr("pacs.queue.database.POSTGRESQL_SETTINGS", ())
    jobs = Place(postgres.emptied(), tmp_path / "key").jobs()
    job = send(jobs)
    with pytest.raises(JobsUnavailableError), jobs._storage.database.reading() as connection, postgres.frozen():
        connection.execute(text("SELECT 'late'"))
    assert jobs.repository.find(job.id) == job
    with postgres.frozen(), pytest.raises(JobsUnavailableError):
        jobs.repository.find(job.id)
    assert jobs.repository.find(job.id) == job
    jobs.close()


def test_instances_that_are_left_alone_are_counted_for_all_replicas(place: Place) -> None:
    one, other = place.jobs(), place.jobs()
    assert one.repository.left_alone() == {}
    one.intake.count_left_alone("another modality", 2)
    other.intake.count_left_alone("another modality")
    other.intake.count_left_alone("a private SOP class")
    assert (
        one.repository.left_alone()
        == other.repository.left_alone()
        == {"a private SOP class": 1, "another modality": 3}
    )


def test_database_of_before_the_count_gets_its_table(place: Place) -> None:
    with place.jobs()._storage.database.writing() as connection:
        tables.left_alone.drop(connection)
    jobs = place.jobs()
    jobs.intake.count_left_alone("another modality")
    assert jobs.repository.left_alone() == {"another modality": 1}
