"""A study is judged by the radiographs that its archive gives; the others are named. A sick archive holds up nobody."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from app.hospital.archive_threads import ArchiveThreads
from app.hospital.gateway import Hospital
from app.replica import Replica, assemble
from pacs.client.configuration import ArchiveConfig
from pacs.errors import PacsError
from pacs.queue.encryption import Cipher
from pacs.queue.jobs import Jobs
from tests.app.api.test_stow_rs import STUDY, finished, hand, related, stow
from tests.app.conftest import serving
from tests.app.hospital.held_study import HeldStudy, holding
from tests.pacs.client.test_http_session import Reply
from tests.pacs.faulty_server import OK, faulty_server
from tests.waiting import HUNG_SECONDS, wait_until

pytestmark = pytest.mark.slow

GOOD, ODD = f"{STUDY}.1.1", f"{STUDY}.1.2"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@contextmanager
def pulling(service: Replica, folder: Path, archives: dict[str, str], **changed: object) -> Iterator[httpx.Client]:
    """A service that can fetch from archives at these roots."""
    jobs = Jobs(f"sqlite:///{folder / 'jobs.sqlite'}", Cipher.from_key_file(folder / "key"), 1 << 30)
    configs = {name: ArchiveConfig(url) for name, url in archives.items()}
    hospital = Hospital(jobs, configs, None, timedelta(0))
    settings = service.settings.model_copy(update=changed)
    with serving(assemble(settings, service.predictor.bundle, hospital)) as client:
        yield client


def asked(client: httpx.Client, archive: str = "main", study: str = STUDY) -> str:
    return str(client.post(f"/dicom-web/studies/{study}/analyze?pacs={archive}").json()["id"])


def answered(service: Replica, folder: Path, study: HeldStudy, **changed: object) -> tuple[dict[str, object], str]:
    """The job once it is final, and its report."""
    with holding(study) as url, pulling(service, folder, {"main": url}, **changed) as client:
        job = finished(client, asked(client))
        return job, client.get(f"/jobs/{job['id']}/report").text


ODD_ONES: dict[str, tuple[bytes | Reply, str]] = {
    "damaged": (hand(2)[:600], "is truncated"),
    "no DICOM": (b"hello", "no DICOM file"),
    "another media type": ((200, {"Content-Type": "text/html"}, b"<html>"), "another media type"),
    "too large": (hand(2) + bytes(2 << 20), "has more than 1048576 bytes"),
    "gone": ((404, {}, b""), f"Archive main has no instance {ODD}."),
    "forbidden": ((403, {}, b""), "Archive main responded with status 403."),
    "of another study": (hand(2, study="1.2.3"), "a file of another study"),
    "another instance": (hand(3), "a file of another instance"),
}


@pytest.mark.parametrize("kind", ODD_ONES)
def test_one_instance_that_cannot_be_had_is_named_and_the_rest_is_judged(
    kind: str, service: Replica, tmp_path: Path
) -> None:
    given, reason = ODD_ONES[kind]
    study = HeldStudy({ODD: given, GOOD: hand(1)})
    job, report = answered(service, tmp_path, study, max_upload_mib=1)
    assert (job["state"], job["attempts"]) == ("delivered", 1)
    assert ODD in report
    assert reason in report
    assert len(study.stored) == 2


def test_instance_that_the_archive_never_delivers_is_left_out_in_the_last_attempt(
    service: Replica, tmp_path: Path
) -> None:
    study = HeldStudy({ODD: (500, {}, b""), GOOD: hand(1)})
    job, report = answered(service, tmp_path, study, job_attempts=1)
    assert job["state"] == "delivered"
    assert f"{ODD}" in report
    assert "Archive main responded with status 500." in report


def test_archive_that_gives_out_nothing_is_no_study_without_radiographs(service: Replica, tmp_path: Path) -> None:
    for number, status in enumerate((500, 403)):
        folder = tmp_path / str(number)
        folder.mkdir()
        study = HeldStudy({ODD: (status, {}, b""), GOOD: (status, {}, b"")})
        job, _ = answered(service, folder, study, job_attempts=1)
        assert (job["state"], job["reason"]) == ("dead", f"Archive main responded with status {status}.")


def test_radiograph_that_was_sent_is_judged_although_the_archive_gives_out_nothing(
    service: Replica, tmp_path: Path
) -> None:
    study = HeldStudy({ODD: (403, {}, b"")})
    with holding(study) as url, pulling(service, tmp_path, {"main": url}) as client:
        finished(client, stow(client, related(hand(1))).headers["x-jobs"])
        job = finished(client, asked(client))
    assert job["state"] == "delivered"
    assert f"{ODD}: Archive main responded with status 403." in str(job["reason"])


@pytest.mark.parametrize("modality", ["DR", "RG", "OT", ""])
def test_series_of_an_unsure_modality_is_fetched_for_its_sop_class(
    modality: str, service: Replica, tmp_path: Path
) -> None:
    study = HeldStudy({GOOD: hand(1, Modality=modality)}, modality)
    assert answered(service, tmp_path, study)[0]["state"] == "delivered"
    capture = HeldStudy({GOOD: hand(1, Modality=modality, SOPClassUID=CAPTURE)}, modality, CAPTURE)
    (tmp_path / "capture").mkdir()
    job, _ = answered(service, tmp_path / "capture", capture)
    assert (job["state"], job["reason"]) == ("refused", "The study holds no radiographs (CR or DX).")


@pytest.mark.parametrize("uid", ["1..2", "1.2.", "..", "abc", "%00"])
def test_study_without_a_uid_is_refused_at_once(uid: str, service: Replica, tmp_path: Path) -> None:
    with pulling(service, tmp_path, {"main": "http://127.0.0.1:9/"}) as client:
        told = client.post(f"/dicom-web/studies/{uid}/analyze?pacs=main")
        assert told.status_code in (HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.NOT_FOUND)
        assert client.get("/jobs").json() == []


def test_archive_that_drips_takes_only_its_own_threads_and_gives_them_back_at_once() -> None:
    async def ask(slow_url: str, well_url: str) -> None:
        threads = ArchiveThreads()
        slow, well = ArchiveConfig(slow_url, reply_seconds=600), ArchiveConfig(well_url)
        async with AsyncExitStack() as stack:
            dripping = [await stack.enter_async_context(threads.connect("slow", slow)) for _ in range(4)]
            waiting = [asyncio.create_task(each.run(each.archive.series, STUDY)) for each in dripping]
            async with threads.connect("well", well) as archive:
                assert [each.series_uid for each in await archive.run(archive.archive.series, STUDY)] == [f"{STUDY}.1"]
            assert await asyncio.gather(*(asyncio.to_thread(str, number) for number in range(20)))
            assert not any(task.done() for task in waiting)
        ended = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 30)
        assert all(isinstance(error, PacsError) for error in ended)
        threads.close()

    drips = faulty_server(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n")
    with drips as slow, holding(HeldStudy({GOOD: hand(1)})) as well:
        asyncio.run(ask(slow.url, well))


def threads_of(archive: str) -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith(f"archive-{archive}")]


def test_archive_that_drips_holds_up_no_other_and_gives_its_threads_back(service: Replica, tmp_path: Path) -> None:
    with ExitStack() as stack:
        slow = stack.enter_context(faulty_server(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"))
        well = stack.enter_context(holding(HeldStudy({GOOD: hand(1)})))
        roots = {"slow": slow.url, "main": well}
        client = stack.enter_context(pulling(service, tmp_path, roots, job_seconds=0.3, job_attempts=1))
        dripping = [asked(client, "slow", f"1.2.{number}") for number in range(12)]
        assert slow.asked.wait(HUNG_SECONDS)
        for path in ("/jobs", "/metrics", "/health/live"):
            assert client.get(path).status_code == HTTPStatus.OK
        assert [finished(client, job)["reason"] for job in dripping] == ["The attempt took more than 0.3 s."] * 12
        assert slow.left.wait(HUNG_SECONDS)
        assert 0 < len(threads_of("slow")) <= 4
    with pulling(service, tmp_path, {"main": well}) as client, pytest.raises(httpx.HTTPStatusError):
        client.post(f"/dicom-web/studies/{STUDY}/analyze?pacs=slow").raise_for_status()
    wait_until(lambda: not threads_of("slow"), "the end of the threads")
