"""A study that an archive has gets one pair of results, in that study, whatever happens on the way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from app.hospital.gateway import Hospital, load_hospital
from app.replica import Replica, assemble
from app.settings import Settings
from pacs.client.configuration import ArchiveConfig, read_archives
from pacs.errors import ConfigurationError
from pacs.queue.encryption import Cipher
from pacs.queue.jobs import Jobs
from tests.app.api.test_stow_rs import STUDY, finished, hand, related, stow
from tests.app.conftest import serving
from tests.conftest import ROOT
from tests.dicom_files import CANARY
from tests.orthanc import RunningOrthanc, archives_at, free_ports, orthanc, routing_rule
from tests.tools import needs
from tests.waiting import HUNG_SECONDS, wait_until

pytestmark = [pytest.mark.slow, needs("Orthanc")]
SECONDS = 90
"""Until all jobs of a test have to be done; far more than they take."""
CAPTURE, REPORT = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.34"


def hospital_with(folder: Path, archives: dict[str, ArchiveConfig]) -> Hospital:
    jobs = Jobs(f"sqlite:///{folder / 'jobs.sqlite'}", Cipher.from_key_file(folder / "key"), 1 << 30)
    return Hospital(jobs, archives, "main", timedelta(seconds=0.5))


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[RunningOrthanc]:
    with orthanc(tmp_path / "orthanc") as running:
        yield running


@pytest.fixture
def client(service: Replica, archive: RunningOrthanc, tmp_path: Path) -> Iterator[httpx.Client]:
    hospital = hospital_with(tmp_path, read_archives(archives_at(tmp_path, archive)))
    with serving(assemble(service.settings, service.predictor.bundle, hospital)) as client:
        yield client


def study(number: int) -> str:
    return f"1.2.826.0.1.3680043.10.1338.{number + 1}00"


def results(running: RunningOrthanc, uid: str) -> list[str]:
    """SOP classes of what is in a study beside its radiographs, as QIDO-RS tells."""
    url = f"{running.url}/studies/{uid}/instances"
    reply = httpx.get(url, params={"includefield": "00080016"}, auth=(running.user, running.password))
    found = reply.json() if reply.status_code == HTTPStatus.OK else []
    return sorted(each["00080016"]["Value"][0] for each in found if each["00080060"]["Value"][0] not in ("CR", "DX"))


def put(running: RunningOrthanc, files: Sequence[bytes]) -> None:
    """Give an archive instances, as a modality does."""
    for file in files:
        url = f"http://127.0.0.1:{running.http_port}/instances"
        httpx.post(url, content=file, auth=(running.user, running.password)).raise_for_status()


def test_archive_finds_one_pair_of_results_in_each_study_and_never_a_second(service: Replica, tmp_path: Path) -> None:
    port, archive_port = free_ports(2)
    settings = {"port": port, "host": "127.0.0.1"}
    archive_folder = tmp_path / "orthanc"
    forward = f"http://127.0.0.1:{port}/dicom-web"
    with orthanc(archive_folder, lua=routing_rule(), forward_to=forward, http_port=archive_port) as running:
        hospital = hospital_with(tmp_path, read_archives(archives_at(tmp_path, running)))
        replica = assemble(service.settings.model_copy(update=settings), service.predictor.bundle, hospital)
        early = study(10)
        put(running, [hand(1, early)])
        time.sleep(3)  # in which the archive finds the study stable, and nobody to send it to
        with serving(replica, port=port) as client:
            studies = [study(number) for number in range(10)]
            put(running, [hand(1, uid) for uid in studies] + [hand(2, studies[0])])
            studies.append(early)
            wait_until(lambda: all(results(running, uid) == [CAPTURE, REPORT] for uid in studies))
            assert stow(client, related(hand(1, studies[3]), hand(3, studies[4]))).status_code == HTTPStatus.OK
            put(running, [hand(1, uid) for uid in studies])
            wait_until(lambda: {job["state"] for job in client.get("/jobs").json()} == {"delivered"})
            time.sleep(2)  # in which an archive that goes round in a circle would have sent them again
            assert {job["state"] for job in client.get("/jobs").json()} == {"delivered"}
            grown = studies.pop(4)
            assert results(running, grown) == [CAPTURE, CAPTURE, REPORT, REPORT]  # a view came after the first pair
            assert all(results(running, uid) == [CAPTURE, REPORT] for uid in studies)
            assert len(client.get("/jobs").json()) == len(studies) + 2


def test_archive_that_is_away_for_a_while_gets_its_results_later(client: httpx.Client, archive: RunningOrthanc) -> None:
    archive.kill()
    job = stow(client, related(hand(1))).headers["x-jobs"]
    wait_until(lambda: client.get(f"/jobs/{job}").json()["reason"] is not None)
    told = client.get(f"/jobs/{job}").json()
    assert (told["state"], told["attempts"]) == ("waiting", 1)
    assert "cannot be reached" in told["reason"]
    archive.start()
    after = finished(client, job)
    assert (after["state"], after["reason"]) == ("delivered", None)
    assert results(archive, told["study_uid"]) == [CAPTURE, REPORT]


def test_study_is_fetched_from_an_archive_and_given_back(client: httpx.Client, archive: RunningOrthanc) -> None:
    put(archive, [hand(1), hand(2)])
    asked = client.post(f"/dicom-web/studies/{STUDY}/analyze?pacs=main")
    assert asked.status_code == HTTPStatus.ACCEPTED
    job = finished(client, asked.json()["id"])
    uid = str(job["study_uid"])
    assert (asked.headers["location"], job["state"]) == (f"/jobs/{job['id']}", "delivered")
    assert results(archive, uid) == [CAPTURE, REPORT]
    report = client.get(f"/jobs/{job['id']}/report").json()
    assert report["resourceType"] == "DiagnosticReport"
    assert client.get(f"/dicom-web/studies/{uid}").status_code == HTTPStatus.NOT_FOUND


def test_archive_that_does_not_have_the_study_is_told_of(client: httpx.Client) -> None:
    told = client.post("/dicom-web/studies/1.2.3/analyze?pacs=nobody")
    assert told.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "the configuration has: main" in told.json()["detail"]
    job = client.post("/dicom-web/studies/1.2.3/analyze?pacs=main").json()["id"]
    wait_until(lambda: client.get(f"/jobs/{job}").json()["reason"] is not None)
    refused = client.get(f"/jobs/{job}").json()
    assert refused["state"] == "refused"
    assert "has no study 1.2.3" in refused["reason"]


def test_study_with_nothing_to_judge_is_refused_with_the_reason(client: httpx.Client) -> None:
    job = stow(client, related(hand(1, BodyPartExamined="CHEST"))).headers["x-jobs"]
    told = finished(client, job)
    assert told["state"] == "refused"
    assert "(0018,0015) Body Part Examined is CHEST" in str(told["reason"])


@contextmanager
def process(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A service in a process of its own, which answers when the block begins."""
    with log.open("ab") as stream:
        running = subprocess.Popen(
            [sys.executable, "-m", "app"], cwd=ROOT, env=environment, stdout=stream, stderr=stream
        )
    try:
        wait_until(lambda: _ready(environment["OSTEON_PORT"], running))
        yield running
    finally:
        running.kill()
        running.wait()


def _ready(port: str, running: subprocess.Popen[bytes]) -> bool:
    assert running.poll() is None, "the service ended"
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == HTTPStatus.OK
    except httpx.HTTPError:
        return False


def environment_of(settings: Settings, archives: Path, state: Path) -> dict[str, str]:
    """Of a service whose jobs lie in `state`."""
    state.mkdir()
    return os.environ | {
        "OSTEON_DEVICE": "cpu",
        "OSTEON_CHECKPOINT": str(settings.checkpoint),
        "OSTEON_GALLERY": str(settings.gallery),
        "OSTEON_SCOPE": "off",
        "OSTEON_PORT": str(free_ports(1)[0]),
        "OSTEON_JOBS": f"sqlite:///{state / 'jobs.sqlite'}",
        "OSTEON_JOBS_KEY": str(state / "key"),
        "OSTEON_ARCHIVES": str(archives),
        "OSTEON_RESULTS_TO": "main",
        "OSTEON_SETTLE_SECONDS": "0.2",
        "OSTEON_LEASE_SECONDS": "3",
    }


def test_service_that_is_killed_again_and_again_leaves_one_pair_and_no_patient_on_its_disk(
    settings: Settings, archive: RunningOrthanc, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    environment = environment_of(settings, archives_at(tmp_path, archive), folder)
    studies = [study(number) for number in range(6)]
    base = f"http://127.0.0.1:{environment['OSTEON_PORT']}"
    for pause in (0.0, 0.6):
        with (
            process(environment, folder / "log") as running,
            httpx.Client(base_url=base, timeout=HUNG_SECONDS) as client,
        ):
            for uid in studies:
                assert stow(client, related(hand(1, uid), hand(2, uid))).status_code == HTTPStatus.OK
            time.sleep(pause)
            running.send_signal(signal.SIGKILL)
            running.wait()
    with process(environment, folder / "log"), httpx.Client(base_url=base, timeout=HUNG_SECONDS) as client:
        wait_until(lambda: [job["state"] for job in client.get("/jobs").json()] == ["delivered"] * len(studies))
    assert all(results(archive, uid) == [CAPTURE, REPORT] for uid in studies)
    for file in folder.iterdir():
        assert CANARY.encode() not in file.read_bytes(), file.name


def test_service_that_is_killed_between_the_views_of_a_study_has_all_of_them_in_its_latest_answer(
    settings: Settings, archive: RunningOrthanc, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    environment = environment_of(settings, archives_at(tmp_path, archive), folder)
    base, rounds = f"http://127.0.0.1:{environment['OSTEON_PORT']}", (0.0, 0.3, 0.6, 1.0)
    for number, pause in enumerate(rounds, start=1):
        with (
            process(environment, folder / "log") as running,
            httpx.Client(base_url=base, timeout=HUNG_SECONDS) as client,
        ):
            assert stow(client, related(hand(number), hand(number + 10))).status_code == HTTPStatus.OK
            time.sleep(pause)
            running.send_signal(signal.SIGKILL)
            running.wait()
    with process(environment, folder / "log"), httpx.Client(base_url=base, timeout=HUNG_SECONDS) as client:
        wait_until(lambda: {job["state"] for job in client.get("/jobs").json()} == {"delivered"})
        latest = max(client.get("/jobs").json(), key=lambda job: job["version"])
        told = client.get(f"/jobs/{latest['id']}/report").text
    assert latest["superseded_by"] is None
    for number in range(1, len(rounds) + 1):
        assert f'urn:oid:{STUDY}.1.{number}"' in told
        assert f'urn:oid:{STUDY}.1.{number + 10}"' in told


def test_archives_file_that_is_not_there_is_refused_even_without_jobs(service: Replica, tmp_path: Path) -> None:
    settings = service.settings.model_copy(update={"archives": tmp_path / "archives.toml"})
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_hospital(settings)
