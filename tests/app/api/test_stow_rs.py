"""STOW-RS accepts every valid form of the same body and reports the outcome of each instance."""

import asyncio
import gzip
import math
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from app.hospital import process
from app.hospital.gateway import Hospital
from app.inference import admission
from app.replica import Replica, assemble
from app.runtime import middleware
from pacs.queue.encryption import Cipher
from pacs.queue.errors import JobsUnavailableError
from pacs.queue.jobs import Job, Jobs
from tests.app.conftest import metric, png, serving
from tests.dicom_files import dicom
from tests.phantoms import draw_phantom
from tests.waiting import HUNG_SECONDS, wait_until

pytestmark = pytest.mark.slow

STUDY = "1.2.826.0.1.3680043.10.1338.1"
TYPE = 'multipart/related; type="application/dicom"; boundary=b-1'
CANNOT_UNDERSTAND, OUT_OF_RESOURCES, OTHER_STUDY = 0xC000, 0xA700, 0xA900


def hand(number: int, study: str = STUDY, **tags: Any) -> bytes:
    """A drawn radiograph, the n-th of its study."""
    return dicom(
        draw_phantom(seed=number),
        StudyInstanceUID=study,
        SeriesInstanceUID=f"{study}.1",
        SOPInstanceUID=f"{study}.1.{number}",
        **tags,
    )


def related(*files: bytes, boundary: str = "b-1", begin: bytes = b"") -> bytes:
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return begin + b"".join(head + each + b"\r\n" for each in files) + f"--{boundary}--\r\n".encode()


def chunks(body: bytes, size: int) -> Iterator[bytes]:
    yield from (body[start : start + size] for start in range(0, len(body), size))


def hospital_at(folder: Path, max_bytes: int = 1 << 30, settle: float = 60) -> Hospital:
    jobs = Jobs(f"sqlite:///{folder / 'jobs.sqlite'}", Cipher.from_key_file(folder / "key"), max_bytes)
    return Hospital(jobs, {}, None, timedelta(seconds=settle))


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return hospital_at(tmp_path)


@pytest.fixture
def client(service: Replica, hospital: Hospital) -> Iterator[httpx.Client]:
    with serving(assemble(service.settings, service.predictor.bundle, hospital)) as client:
        yield client


def stow(client: httpx.Client, body: bytes | Iterator[bytes], path: str = "", media: str = TYPE) -> httpx.Response:
    return client.post(f"/dicom-web/studies{path}", content=body, headers={"Content-Type": media})


def uids(reply: httpx.Response, sequence: str = "00081199") -> list[str]:
    """SOP Instance UIDs that a reply refers to."""
    items = reply.json().get(sequence, {}).get("Value", [])
    return [item["00081155"]["Value"][0] for item in items if "00081155" in item]


def reasons(reply: httpx.Response) -> list[int]:
    return [item["00081197"]["Value"][0] for item in reply.json()["00081198"]["Value"]]


@pytest.mark.parametrize(
    "media",
    [
        TYPE,
        'multipart/related; type=application/dicom; boundary="b-1"',
        'Multipart/Related;boundary=b-1;type="application/dicom"',
        'multipart/related; boundary=b-1; type="application/dicom"; transfer-syntax=*',
    ],
)
@pytest.mark.parametrize("begin", [b"", b"\r\n"])
@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_every_form_of_a_body_is_the_same_study(client: httpx.Client, media: str, begin: bytes, size: int) -> None:
    reply = stow(client, chunks(related(hand(1), hand(2), begin=begin), size), media=media)
    assert reply.status_code == HTTPStatus.OK
    assert reply.headers["content-type"] == "application/dicom+json"
    assert uids(reply) == [f"{STUDY}.1.1", f"{STUDY}.1.2"]
    assert "00081198" not in reply.json()


def test_study_in_several_requests_is_one_job_with_each_instance_once(client: httpx.Client, hospital: Hospital) -> None:
    replies = [stow(client, related(hand(1))), stow(client, related(hand(2), hand(1)))]
    assert replies[0].headers["x-jobs"] == replies[1].headers["x-jobs"]
    kept = list(hospital.jobs.repository.instances(replies[0].headers["x-jobs"]))
    assert sorted(each.instance_uid for each in kept) == [f"{STUDY}.1.1", f"{STUDY}.1.2"]
    assert {each.data for each in kept} == {hand(1), hand(2)}


def test_studies_of_one_request_are_a_job_each(client: httpx.Client) -> None:
    reply = stow(client, related(hand(1), hand(1, study="1.2.3"), hand(2, study="1.2.3")))
    assert len(reply.headers["x-jobs"].split(", ")) == 2
    states = {job["study_uid"]: job["state"] for job in client.get("/jobs").json()}
    assert states == {STUDY: "waiting", "1.2.3": "waiting"}


def test_what_is_no_radiograph_is_accepted_and_left_alone(client: httpx.Client) -> None:
    capture = hand(1, Modality="OT", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    reply = stow(client, related(capture))
    assert (reply.status_code, uids(reply)) == (HTTPStatus.OK, [f"{STUDY}.1.1"])
    assert "x-jobs" not in reply.headers
    jobs = client.get("/jobs")
    assert (jobs.json(), jobs.headers["x-left-alone"]) == ([], "another SOP class=1")


def test_what_is_left_alone_is_counted_by_reason(client: httpx.Client) -> None:
    assert client.get("/jobs/left-alone").json() == {}
    assert "x-left-alone" not in client.get("/jobs").headers
    tomograms = [hand(number, Modality="CT") for number in (1, 2)]
    private = hand(3, Modality="OT", SOPClassUID="1.3.12.2.1107.5.9.1")
    for _ in range(2):
        assert stow(client, related(*tomograms, private, hand(4))).status_code == HTTPStatus.OK
    assert client.get("/jobs/left-alone").json() == {"a private SOP class": 2, "another modality": 4}
    assert metric(client, 'osteon_left_alone_instances{reason="another modality"}') == 4


@pytest.mark.parametrize("modality", ["DR", "RG", "OT", None])
def test_radiograph_of_an_unsure_modality_is_analyzed(modality: str | None, service: Replica, tmp_path: Path) -> None:
    with serving(assemble(service.settings, service.predictor.bundle, hospital_at(tmp_path, settle=0))) as client:
        job = stow(client, related(hand(1, Modality=modality))).headers["x-jobs"]
        assert finished(client, job)["state"] == "kept"


def test_instance_of_another_study_fails_and_the_others_do_not(client: httpx.Client) -> None:
    reply = stow(client, related(hand(1), hand(1, study="1.2.3")), path=f"/{STUDY}")
    assert reply.status_code == HTTPStatus.ACCEPTED
    assert (uids(reply), uids(reply, "00081198"), reasons(reply)) == ([f"{STUDY}.1.1"], ["1.2.3.1.1"], [OTHER_STUDY])


def test_what_is_no_dicom_fails(client: httpx.Client) -> None:
    reply = stow(client, related(b"hello", hand(1)[:400]))
    assert (reply.status_code, reasons(reply)) == (HTTPStatus.CONFLICT, [CANNOT_UNDERSTAND] * 2)


def test_full_spool_fails_and_what_is_in_it_stays(service: Replica, tmp_path: Path) -> None:
    hospital = hospital_at(tmp_path, max_bytes=len(hand(1)) + 1000)
    with serving(assemble(service.settings, service.predictor.bundle, hospital)) as client:
        reply = stow(client, related(hand(1), hand(2)))
        assert (reply.status_code, reasons(reply)) == (HTTPStatus.ACCEPTED, [OUT_OF_RESOURCES])
        assert [each.data for each in hospital.jobs.repository.instances(reply.headers["x-jobs"])] == [hand(1)]


@pytest.mark.parametrize(
    ("body", "media", "path", "status"),
    [
        (related(hand(1)), "application/dicom", "", HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
        (related(hand(1)), 'multipart/related; type="application/dicom+json"; boundary=b-1', "", 415),
        (related(hand(1)), 'multipart/related; type="application/dicom"', "", HTTPStatus.BAD_REQUEST),
        (related(hand(1))[:-30], TYPE, "", HTTPStatus.BAD_REQUEST),
        (related(), TYPE, "", HTTPStatus.BAD_REQUEST),
        (b"", TYPE, "", HTTPStatus.BAD_REQUEST),
        (related(hand(1)), TYPE, "/Canary^Bird", HTTPStatus.UNPROCESSABLE_ENTITY),
    ],
)
def test_bad_request_is_told_what_to_change(
    client: httpx.Client, body: bytes, media: str, path: str, status: int
) -> None:
    reply = stow(client, body, path, media)
    assert reply.status_code == status
    assert reply.json()["detail"]
    assert stow(client, related(hand(1))).status_code == HTTPStatus.OK


def test_instance_beyond_the_limit_is_too_large(service: Replica, hospital: Hospital) -> None:
    settings = service.settings.model_copy(update={"max_upload_mib": 1})
    with serving(assemble(settings, service.predictor.bundle, hospital)) as client:
        large = dicom(np.tile(draw_phantom(seed=1), (10, 10)))
        assert stow(client, related(large)).status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def test_callers_give_the_password_where_there_is_one(service: Replica, hospital: Hospital) -> None:
    settings = service.settings.model_copy(
        update={"dicomweb_user": "orthanc", "dicomweb_password": SecretStr("s3cret")}
    )
    with serving(assemble(settings, service.predictor.bundle, hospital)) as client:
        refused = stow(client, related(hand(1)))
        assert refused.status_code == HTTPStatus.UNAUTHORIZED
        assert refused.headers["www-authenticate"].startswith("Basic")
        client.auth = ("orthanc", "s3cret")
        assert stow(client, related(hand(1))).status_code == HTTPStatus.OK
        assert client.get("/jobs", auth=("orthanc", "wrong")).status_code == HTTPStatus.UNAUTHORIZED


def test_metrics_count_the_jobs_by_state(client: httpx.Client, hospital: Hospital) -> None:
    stow(client, related(hand(1), hand(1, study="1.2.3")))
    assert [metric(client, f'osteon_jobs{{state="{state}"}}') for state in ("waiting", "dead")] == [2, 0]
    assert metric(client, "osteon_jobs_overdue_seconds") == 0


def test_database_that_fails_hides_the_counts_and_stops_no_work(
    service: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital = hospital_at(tmp_path, settle=0)
    lease = hospital.jobs.lease
    answers = iter([JobsUnavailableError("The database is away."), JobsUnavailableError("The database is away.")])

    def sometimes(*arguments: Any) -> Job | None:
        if error := next(answers, None):
            raise error
        return lease(*arguments)

    monkeypatch.setattr(hospital.jobs, "lease", sometimes)
    with serving(assemble(service.settings, service.predictor.bundle, hospital)) as client:
        job = stow(client, related(hand(1))).headers["x-jobs"]
        assert finished(client, job)["state"] == "kept"
        assert metric(client, 'osteon_jobs{state="kept"}') == 1
        monkeypatch.setattr(hospital.jobs.repository, "counts", failing)
        assert "osteon_jobs{" not in client.get("/metrics").text
        assert math.isnan(metric(client, "osteon_jobs_overdue_seconds"))


def test_attempt_that_never_ends_is_ended(service: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(*_: object) -> None:
        await asyncio.Event().wait()

    settings = service.settings.model_copy(update={"job_seconds": 0.2})
    hospital = hospital_at(tmp_path, settle=0)
    monkeypatch.setattr(process, "analyze_study", endless)
    with serving(assemble(settings, service.predictor.bundle, hospital)) as client:
        job = stow(client, related(hand(1))).headers["x-jobs"]
        while (told := client.get(f"/jobs/{job}").json())["reason"] is None:
            time.sleep(0.05)
    assert (told["state"], told["reason"]) == ("waiting", "The attempt took more than 0.2 s.")


def failing() -> None:
    raise JobsUnavailableError("The database is away.")


def test_replica_without_jobs_says_what_to_set(service: Replica) -> None:
    with serving(assemble(service.settings, service.predictor.bundle)) as client:
        reply = stow(client, related(hand(1)))
        assert reply.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert "OSTEON_JOBS" in reply.json()["detail"]


def test_study_without_an_archive_keeps_its_results_here(service: Replica, tmp_path: Path) -> None:
    hospital = hospital_at(tmp_path, settle=0)
    with serving(assemble(service.settings, service.predictor.bundle, hospital)) as client:
        job = stow(client, related(hand(1), hand(2))).headers["x-jobs"]
        done = finished(client, job)
        assert (done["state"], done["reason"]) == ("kept", None)
        found = client.get(f"/dicom-web/studies/{STUDY}/instances").json()
        assert sorted(each["00080060"]["Value"][0] for each in found) == ["OT", "SR"]
        whole = client.get(f"/dicom-web/studies/{STUDY}")
        assert whole.headers["content-type"].startswith("multipart/related")
        report = client.get(f"/jobs/{job}/report").json()
        assert report["resourceType"] == "DiagnosticReport"


def finished(client: httpx.Client, job: str) -> dict[str, object]:
    """The job once it is final."""

    def told() -> dict[str, object]:
        return dict(client.get(f"/jobs/{job}").json())

    wait_until(lambda: told()["state"] not in ("waiting", "running"), "the end of the job")
    return told()


def opened(client: httpx.Client) -> socket.socket:
    """A connection that has begun to send a study."""
    connection = socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=HUNG_SECONDS)
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\nTransfer-Encoding: chunked\r\n\r\n"
    part = b"--b-1\r\nContent-Type: application/dicom\r\n\r\n"
    connection.sendall(head.encode() + b"%x\r\n%s\r\n" % (len(part), part))
    return connection


def test_sender_that_drips_gets_504_and_frees_its_place(service: Replica, hospital: Hospital) -> None:
    settings = service.settings.model_copy(update={"deadline_seconds": 1.0, "max_inflight_mib": 100})
    with serving(assemble(settings, service.predictor.bundle, hospital)) as client, opened(client) as dripping:
        while metric(client, "osteon_pending_bytes") != settings.max_upload_bytes:
            time.sleep(0.01)
        dripping.sendall(b"1\r\nx\r\n")
        assert dripping.recv(4096).split()[1] == b"504"
        assert metric(client, "osteon_pending_bytes") == 0
        assert stow(client, related(hand(1))).status_code == HTTPStatus.OK


def test_senders_beyond_the_places_for_them_get_429_and_callers_are_answered(
    service: Replica, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "SENDER_WAIT_SECONDS", 0.2)
    settings = service.settings.model_copy(update={"max_inflight_mib": 200})
    with (
        serving(assemble(settings, service.predictor.bundle, hospital)) as client,
        opened(client),
        opened(client),
    ):
        while metric(client, "osteon_pending_requests") < 2:
            time.sleep(0.01)
        refused = stow(client, related(hand(1)))
        assert (refused.status_code, refused.headers["retry-after"]) == (HTTPStatus.TOO_MANY_REQUESTS, "10")
        image = png(draw_phantom(seed=1))
        assert client.post("/classify", files={"file": image}).status_code == HTTPStatus.OK


def test_bytes_behind_the_last_boundary_are_not_read_for_ever(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "MAX_DRAIN_BYTES", 1 << 20)
    with opened(client) as endless:
        file = hand(1) + b"\r\n--b-1--\r\n"
        endless.sendall(b"%x\r\n%s\r\n" % (len(file), file))
        assert endless.recv(4096).split()[1] == b"200"
        endless.sendall(b"40000000\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            endless.sendall(bytes(1 << 30))


def test_compressed_study_is_taken(client: httpx.Client) -> None:
    headers = {"Content-Type": TYPE, "Content-Encoding": "gzip"}
    reply = client.post("/dicom-web/studies", content=gzip.compress(related(hand(1), hand(2))), headers=headers)
    assert (reply.status_code, len(uids(reply))) == (HTTPStatus.OK, 2)
