"""While the database of jobs is away, callers are told to come again, and images are answered as ever."""

from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from app.hospital.gateway import Hospital
from app.replica import Replica, assemble
from pacs.client.configuration import ArchiveConfig
from pacs.queue.encryption import Cipher
from pacs.queue.jobs import Jobs
from tests.app.api.test_stow_rs import STUDY, hand, related, stow
from tests.app.conftest import metric, serving
from tests.postgres import INITDB, Postgres, running_postgres
from tests.tools import needs

pytestmark = [pytest.mark.slow, needs(INITDB)]


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def client(service: Replica, postgres: Postgres, tmp_path: Path) -> Iterator[httpx.Client]:
    jobs = Jobs(postgres.emptied(), Cipher.from_key_file(tmp_path / "key"), 1 << 30)
    hospital = Hospital(jobs, {"main": ArchiveConfig("http://127.0.0.1:9/")}, None, timedelta(hours=1))
    with serving(assemble(service.settings, service.predictor.bundle, hospital)) as client:
        yield client


def test_every_request_that_needs_it_gets_503_and_when_to_come_again(
    client: httpx.Client, postgres: Postgres, radiograph: bytes
) -> None:
    job = stow(client, related(hand(1))).headers["x-jobs"]
    postgres.stop()
    replies = [
        stow(client, related(hand(2))),
        client.post(f"/dicom-web/studies/{STUDY}/analyze?pacs=main"),
        client.post(f"/jobs/{job}/retry"),
        *(client.get(path) for path in ("/jobs", f"/jobs/{job}", f"/jobs/{job}/report")),
        *(client.get(f"/dicom-web/studies/{STUDY}{rest}") for rest in ("", "/series", "/instances", "/metadata")),
        client.get(f"/dicom-web/studies?StudyInstanceUID={STUDY}"),
    ]
    assert {reply.status_code for reply in replies} == {HTTPStatus.SERVICE_UNAVAILABLE}
    assert all(int(reply.headers["retry-after"]) > 0 for reply in replies)
    assert all("The database of jobs cannot be used at the moment" in reply.json()["detail"] for reply in replies)
    assert {reply.json()["type"] for reply in replies} == {"urn:osteon:error:JobsUnavailableError"}
    assert client.post("/classify", files={"file": radiograph}).status_code == HTTPStatus.OK
    assert metric(client, 'osteon_refusals_total{reason="JobsUnavailableError"}') == len(replies)
    postgres.start()
    assert stow(client, related(hand(2))).status_code == HTTPStatus.OK
    assert client.get(f"/jobs/{job}").json()["state"] == "waiting"
