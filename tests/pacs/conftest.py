"""Fixtures of these tests: an archive, a database of each kind, and a clock that is set by hand."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pacs.queue.encryption import Cipher
from pacs.queue.jobs import Jobs
from tests.dicom_files import CANARY
from tests.orthanc import RunningOrthanc, orthanc
from tests.pacs.studies import Clock
from tests.postgres import INITDB, Postgres, running_postgres
from tests.tools import needs

LIMIT = 1 << 20
"""Limit of stored bytes in these tests."""
TALKATIVE = (None, "dicomweb_client", "dicomweb_client.web", "urllib3", "urllib3.connectionpool", "retrying")


@pytest.fixture(autouse=True)
def nothing_of_the_patient_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that no log record of any level holds patient data."""
    for name in TALKATIVE:
        caplog.set_level(logging.DEBUG, name)
    yield
    written = [record.getMessage() for phase in ("setup", "call") for record in caplog.get_records(phase)]
    assert [line for line in written if CANARY.split("^")[0] in line] == []


@dataclass
class Place:
    """A database and a key that several processes share."""

    address: str
    key: Path
    clock: Clock = field(default_factory=Clock)
    opened: list[Jobs] = field(default_factory=list)

    def jobs(self, max_bytes: int = LIMIT) -> Jobs:
        """Connect to the jobs as a replica does."""
        self.opened.append(Jobs(self.address, Cipher.from_key_file(self.key), max_bytes, self.clock))
        return self.opened[-1]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningOrthanc]:
    """An archive, empty when a module begins."""
    with orthanc(tmp_path_factory.mktemp("orthanc")) as started:
        yield started


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=needs(INITDB))])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    else:
        address = request.getfixturevalue("postgres").emptied()
    place = Place(address, tmp_path / "jobs.key")
    yield place
    for jobs in place.opened:
        jobs.close()


@pytest.fixture
def jobs(place: Place) -> Jobs:
    return place.jobs()


@pytest.fixture
def clock(place: Place) -> Clock:
    return place.clock
