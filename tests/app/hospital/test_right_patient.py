"""Each study is answered for its own patient and for all of its views, whatever is sent, fetched or there before."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import JPEG2000Lossless

from app.hospital import process, worker
from app.hospital.archive_threads import ArchiveThreads
from app.hospital.delivery import deliver
from app.hospital.gateway import Hospital
from app.replica import Replica, assemble
from pacs.errors import ArchiveRefusedError, ArchiveUnavailableError
from pacs.instance import Instance
from pacs.queue.encryption import Cipher
from pacs.queue.jobs import Jobs
from pacs.results.fingerprint import compute_fingerprint
from tests.app.api.test_stow_rs import STUDY, finished, hand, hospital_at, reasons, related, stow, uids
from tests.app.conftest import metric, serving
from tests.app.hospital.fake_archive import FakeArchive, fake_archive
from tests.dicom_files import CANARY, dataset_of, dicom
from tests.phantoms import draw_phantom
from tests.waiting import wait_until
from xray.predictor import Predictor

pytestmark = pytest.mark.slow

OTHER_PATIENT, DUPLICATE = 0xA900, 0x0111
SECOND = {"PatientID": "SECOND-2", "PatientName": "Second^Bert"}


@pytest.fixture
def client(service: Replica, tmp_path: Path) -> Iterator[httpx.Client]:
    """A service that keeps its results."""
    with serving(assemble(service.settings, service.predictor.bundle, hospital_at(tmp_path, settle=0.3))) as client:
        yield client


@pytest.fixture
def archive() -> Iterator[FakeArchive]:
    with fake_archive() as archive:
        yield archive


@pytest.fixture
def fetching(service: Replica, archive: FakeArchive, tmp_path: Path) -> Iterator[httpx.Client]:
    """A service that delivers its results to the archive."""
    jobs = Jobs(f"sqlite:///{tmp_path / 'jobs.sqlite'}", Cipher.from_key_file(tmp_path / "key"), 1 << 30)
    hospital = Hospital(jobs, {"main": archive.config}, "main", timedelta(seconds=0.3))
    with serving(assemble(service.settings, service.predictor.bundle, hospital)) as client:
        yield client


def reports(client: httpx.Client, study: str = STUDY) -> list[Dataset]:
    """The structured reports that QIDO-RS and WADO-RS give out for a study."""
    reply = client.get(f"/dicom-web/studies/{study}")
    boundary = reply.headers["content-type"].rpartition("boundary=")[2].encode()
    parts = reply.content.split(b"--" + boundary)[1:-1]
    found = [dataset_of(part.partition(b"\r\n\r\n")[2][:-2]) for part in parts]
    return [each for each in found if each.Modality == "SR"]


def fetch(client: httpx.Client, study: str = STUDY) -> dict[str, object]:
    return finished(client, client.post(f"/dicom-web/studies/{study}/analyze?pacs=main").json()["id"])


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("second_comes_first", [True, False])
def test_second_patient_under_a_study_uid_is_refused_and_the_first_is_answered_alone(
    client: httpx.Client, together: bool, second_comes_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    files = [hand(1, PatientName=CANARY), hand(2, **SECOND)]
    if second_comes_first:
        files.reverse()
    replies = [stow(client, related(*files))] if together else [stow(client, related(each)) for each in files]
    assert [reason for reply in replies[-1:] for reason in reasons(reply)] == [OTHER_PATIENT]
    assert replies[-1].status_code == (HTTPStatus.ACCEPTED if together else HTTPStatus.CONFLICT)
    job = finished(client, replies[0].headers["x-jobs"])
    assert (job["state"], job["refused"]) == ("kept", {"other patient": 1})
    assert metric(client, 'osteon_refused_instances{reason="other patient"}') == 1
    (report,) = reports(client)
    first, second = (2, 1) if second_comes_first else (1, 2)
    assert report.PatientID == ("SECOND-2" if second_comes_first else "CANARY-4711")
    assert f"{STUDY}.1.{first}" in report.to_json()
    assert f"{STUDY}.1.{second}" not in report.to_json()
    assert [word for word in ("Second", "SECOND-2", CANARY, "CANARY-4711") if word in caplog.text] == []
    assert "other patient" in caplog.text


def test_second_patient_after_the_answer_is_refused_and_the_patients_own_view_is_not(client: httpx.Client) -> None:
    finished(client, stow(client, related(hand(1))).headers["x-jobs"])
    late = stow(client, related(hand(2, **SECOND), hand(3)))
    assert (late.status_code, uids(late), reasons(late)) == (HTTPStatus.ACCEPTED, [f"{STUDY}.1.3"], [OTHER_PATIENT])
    finished(client, late.headers["x-jobs"])
    (report,) = reports(client)
    assert f"{STUDY}.1.3" in report.to_json()
    assert f"{STUDY}.1.2" not in report.to_json()


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "PatientID"])
def test_file_that_names_two_studies_or_patients_gives_nobody_a_result(client: httpx.Client, keyword: str) -> None:
    data = hand(1)
    again = {
        "StudyInstanceUID": b"\x20\x00\x0d\x00UI\x06\x001.2.9\0",
        "PatientID": b"\x10\x00\x20\x00LO\x06\x00SECOND",
    }
    cut = data.index(b"\x28\x00\x02\x00US")
    reply = stow(client, related(data[:cut] + again[keyword] + data[cut:]))
    if reply.status_code == HTTPStatus.OK:  # receipt may see it too, and is welcome to refuse it
        job = finished(client, reply.headers["x-jobs"])
        assert (job["state"], job["reason"]) == ("refused", process.AMBIGUOUS_PATIENT)
    assert client.get(f"/dicom-web/studies/{STUDY}").status_code == HTTPStatus.NOT_FOUND


def test_late_view_gets_a_further_pair_of_results(client: httpx.Client) -> None:
    first = finished(client, stow(client, related(hand(1))).headers["x-jobs"])
    (before,) = reports(client)
    second = finished(client, stow(client, related(hand(2))).headers["x-jobs"])
    assert (first["version"], second["version"], second["supersedes"]) == (1, 2, first["id"])
    assert client.get(f"/jobs/{first['id']}").json()["superseded_by"] == second["id"]
    (after,) = reports(client)
    assert all(f"{STUDY}.1.{number}" in after.to_json() for number in (1, 2))
    predecessor = after.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert predecessor.ReferencedSOPInstanceUID == before.SOPInstanceUID != after.SOPInstanceUID
    told = client.get(f"/jobs/{second['id']}/report").json()
    assert told["extension"][0]["valueReference"]["identifier"]["value"] == f"urn:oid:{before.SOPInstanceUID}"
    earlier = f"/dicom-web/studies/{STUDY}/series/{before.SeriesInstanceUID}/instances/{before.SOPInstanceUID}"
    assert client.get(earlier).status_code == HTTPStatus.OK


def test_same_again_changes_nothing(client: httpx.Client) -> None:
    job = finished(client, stow(client, related(hand(1), hand(2))).headers["x-jobs"])
    again = stow(client, related(hand(2), hand(1)))
    assert (again.status_code, again.headers["x-jobs"]) == (HTTPStatus.OK, job["id"])
    assert client.get(f"/jobs/{job['id']}").json() == job
    assert len(client.get("/jobs").json()) == 1


@pytest.mark.parametrize("answered", [True, False])
def test_other_pixels_under_the_same_uid_are_refused_and_said(client: httpx.Client, answered: bool) -> None:
    job = stow(client, related(hand(1))).headers["x-jobs"]
    if answered:
        finished(client, job)
    other = dicom(
        draw_phantom(seed=9), StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.1", SOPInstanceUID=f"{STUDY}.1.1"
    )
    reply = stow(client, related(other))
    assert (reply.status_code, reasons(reply)) == (HTTPStatus.CONFLICT, [DUPLICATE])
    told = finished(client, job)
    assert (told["refused"], told["version"]) == ({"other content": 1}, 1)
    assert metric(client, 'osteon_refused_instances{reason="other content"}') == 1


def test_same_image_in_another_transfer_syntax_is_no_other_content(client: httpx.Client) -> None:
    job = stow(client, related(hand(1))).headers["x-jobs"]
    names: dict[str, Any] = {
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": f"{STUDY}.1",
        "SOPInstanceUID": f"{STUDY}.1.1",
    }
    compressed = dicom(draw_phantom(seed=1), 8, JPEG2000Lossless, **names)
    moments = (lambda: None, lambda: finished(client, job))
    for reach in moments:
        reach()
        reply = stow(client, related(compressed))
        assert (reply.status_code, reply.headers["x-jobs"]) == (HTTPStatus.OK, job)
    turned = dicom(draw_phantom(seed=1), 8, JPEG2000Lossless, ImageLaterality="R", **names)
    assert reasons(stow(client, related(turned))) == [DUPLICATE]


def test_reload_between_receipt_and_work_names_the_network_that_judged(
    service: Replica, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hospital = hospital_at(tmp_path, settle=2)
    replica = assemble(service.settings, service.predictor.bundle, hospital)
    old = service.predictor.bundle.predictor
    renamed = Predictor(replace(old.manifest, id="0123456789ab"), old.engine)
    with serving(replica) as client:
        job = stow(client, related(hand(1))).headers["x-jobs"]
        assert client.get(f"/jobs/{job}").json()["checkpoint"] == old.manifest.id
        replica.predictor.use(replace(service.predictor.bundle, predictor=renamed))
        assert finished(client, job)["checkpoint"] == "0123456789ab"
        (report,) = reports(client)
        assert "0123456789ab" in report.SoftwareVersions
        assert old.manifest.id not in report.to_json()
        told = client.get(f"/jobs/{job}/report").text
    assert "0123456789ab" in told
    assert old.manifest.id not in told
    assert f"Job {job} is kept, analyzed by checkpoint 0123456789ab." in caplog.text


def test_worker_that_dies_is_begun_again_and_meanwhile_the_replica_is_not_ready(
    service: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "RESTART_SECONDS", 2)
    hospital = hospital_at(tmp_path, settle=0)
    lease, deaths = hospital.jobs.lease, iter([ZeroDivisionError(CANARY)])

    def dying(*arguments: Any) -> object:
        if error := next(deaths, None):
            raise error
        return lease(*arguments)

    monkeypatch.setattr(hospital.jobs, "lease", dying)
    with serving(assemble(service.settings, service.predictor.bundle, hospital)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == HTTPStatus.SERVICE_UNAVAILABLE)
        assert "worker of the jobs ended with ZeroDivisionError" in client.get("/health/ready").json()["detail"]
        assert client.get("/health/live").status_code == HTTPStatus.OK
        job = stow(client, related(hand(1))).headers["x-jobs"]
        assert finished(client, job)["state"] == "kept"
        assert client.get("/health/ready").status_code == HTTPStatus.OK
    assert "The worker of the jobs ended with ZeroDivisionError. It restarts" in caplog.text
    assert CANARY not in caplog.text


def test_fetched_file_of_another_study_or_instance_is_left_out(fetching: httpx.Client, archive: FakeArchive) -> None:
    archive.put(hand(1))
    archive.put(hand(2, study="1.2.777"), listed_as=(STUDY, f"{STUDY}.1", f"{STUDY}.1.2"))
    archive.put(hand(1), listed_as=(STUDY, f"{STUDY}.1", f"{STUDY}.1.3"))
    job = fetch(fetching)
    assert job["state"] == "delivered"
    assert all(f"{STUDY}.1.{number}: The archive returned a file of another" in str(job["reason"]) for number in (2, 3))
    (report,) = archive.reports(STUDY)
    assert b"Not judged: " in report
    assert b"1.2.777" not in report


def test_archive_that_gives_out_only_another_study_is_refused_as_such(
    fetching: httpx.Client, archive: FakeArchive
) -> None:
    archive.put(hand(1, study="1.2.777", **SECOND), listed_as=(STUDY, "1.2.55.1", "1.2.55.1.1"))
    job = fetch(fetching)
    assert job["state"] == "refused"
    assert "a file of another study" in str(job["reason"])
    assert archive.reports(STUDY) == []


def test_second_patient_in_an_archives_study_is_left_out_and_named(
    fetching: httpx.Client, archive: FakeArchive
) -> None:
    archive.put(hand(1))
    archive.put(hand(2, **SECOND))
    job = fetch(fetching)
    assert f"{STUDY}.1.2: It belongs to another patient" in str(job["reason"])
    (report,) = archive.reports(STUDY)
    assert dataset_of(report).PatientID == "CANARY-4711"


def test_damaged_and_oversized_files_of_an_archive_are_left_out_and_the_rest_is_judged(
    service: Replica, archive: FakeArchive, tmp_path: Path
) -> None:
    archive.put(hand(1))
    archive.put(hand(2))
    archive.files[(STUDY, f"{STUDY}.1", f"{STUDY}.1.2")] = hand(2)[:300]
    archive.put(hand(3))
    archive.files[(STUDY, f"{STUDY}.1", f"{STUDY}.1.3")] = hand(3) + bytes(2 << 20)
    hospital = hospital_at(tmp_path)
    hospital = replace(hospital, archives={"main": archive.config})
    settings = service.settings.model_copy(update={"max_upload_mib": 1})
    with serving(assemble(settings, service.predictor.bundle, hospital)) as client:
        job = fetch(client)
    assert (job["state"], job["attempts"]) == ("delivered", 1)
    assert "2 of its radiographs were left out." in str(job["reason"])


def test_radiograph_sent_into_a_study_that_is_fetched_is_judged(fetching: httpx.Client, archive: FakeArchive) -> None:
    archive.put(hand(1))
    asked = fetching.post(f"/dicom-web/studies/{STUDY}/analyze?pacs=main").json()["id"]
    sent = stow(fetching, related(hand(2)))
    assert sent.status_code == HTTPStatus.OK
    last = finished(fetching, sent.headers["x-jobs"])
    finished(fetching, asked)
    report = dataset_of(archive.reports(STUDY)[-1]).to_json()
    assert last["state"] == "delivered"
    assert all(f"{STUDY}.1.{number}" in report for number in (1, 2))


def test_study_that_was_sent_is_judged_with_what_the_archive_has_when_it_is_asked_for(
    fetching: httpx.Client, archive: FakeArchive
) -> None:
    sent = stow(fetching, related(hand(1))).headers["x-jobs"]
    archive.put(hand(2))
    job = fetch(fetching)
    finished(fetching, sent)
    report = dataset_of(archive.reports(STUDY)[-1]).to_json()
    assert job["state"] == "delivered"
    assert all(f"{STUDY}.1.{number}" in report for number in (1, 2))


def test_stranger_who_sends_into_a_study_that_is_fetched_does_not_become_its_patient(
    fetching: httpx.Client, archive: FakeArchive
) -> None:
    archive.put(hand(1))
    asked = fetching.post(f"/dicom-web/studies/{STUDY}/analyze?pacs=main").json()["id"]
    sent = stow(fetching, related(hand(2, **SECOND)))
    last = finished(fetching, sent.headers.get("x-jobs", asked))
    finished(fetching, asked)
    refused = sent.status_code == HTTPStatus.CONFLICT
    assert refused or "It belongs to another patient" in str(last["reason"])
    for report in archive.reports(STUDY):
        assert dataset_of(report).PatientID == "CANARY-4711"


def test_results_of_a_stranger_who_sent_first_do_not_reach_the_archives_study(
    fetching: httpx.Client, archive: FakeArchive
) -> None:
    archive.put(hand(2))
    reply = stow(fetching, related(hand(1, **SECOND)))
    job = f"/jobs/{reply.headers['x-jobs']}"
    wait_until(lambda: fetching.get(job).json()["reason"] is not None)
    assert "under another Patient ID" in fetching.get(job).json()["reason"]
    assert archive.reports(STUDY) == []


@pytest.mark.parametrize(("coerces", "archives_id"), [(False, " canary-4711 "), (True, "SITE-7")])
def test_archive_that_writes_the_same_patient_in_its_own_way_gets_the_results(
    service: Replica, archive: FakeArchive, tmp_path: Path, coerces: bool, archives_id: str
) -> None:
    archive.put(hand(1))
    archive.patient_id = archives_id
    jobs = Jobs(f"sqlite:///{tmp_path / 'jobs.sqlite'}", Cipher.from_key_file(tmp_path / "key"), 1 << 30)
    config = replace(archive.config, coerces_patient_ids=coerces)
    hospital = Hospital(jobs, {"main": config}, "main", timedelta(seconds=0.3))
    with serving(assemble(service.settings, service.predictor.bundle, hospital)) as client:
        assert fetch(client)["state"] == "delivered"
    assert len(archive.reports(STUDY)) == 1


def test_other_content_than_the_archives_is_left_out_and_named(fetching: httpx.Client, archive: FakeArchive) -> None:
    archive.put(hand(1))
    job = fetch(fetching)
    other = dicom(
        draw_phantom(seed=9), StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.1", SOPInstanceUID=f"{STUDY}.1.1"
    )
    sent = stow(fetching, related(other))
    after = finished(fetching, sent.headers["x-jobs"])
    assert (after["version"], after["supersedes"]) == (2, job["id"])
    assert "differs from the archive's" in str(after["reason"])


def test_radiograph_that_was_sent_is_judged_where_the_archives_file_of_it_is_damaged(
    fetching: httpx.Client, archive: FakeArchive
) -> None:
    archive.put(hand(1))
    archive.put(hand(2))
    archive.files[(STUDY, f"{STUDY}.1", f"{STUDY}.1.2")] = hand(2)[:300]
    finished(fetching, stow(fetching, related(hand(2))).headers["x-jobs"])
    job = fetch(fetching)
    assert (job["state"], job["reason"]) == ("delivered", None)
    report = dataset_of(archive.reports(STUDY)[-1])
    assert report.CompletionFlag == "COMPLETE"
    assert "Not judged" not in report.to_json()
    assert f"{STUDY}.1.2" in report.to_json()


def test_instance_that_an_archive_lists_in_two_series_is_judged_once(
    fetching: httpx.Client, archive: FakeArchive
) -> None:
    archive.put(hand(1))
    archive.put(hand(1), listed_as=(STUDY, f"{STUDY}.2", f"{STUDY}.1.1"))
    job = fetch(fetching)
    report = fetching.get(f"/jobs/{job['id']}/report").json()
    assert [each["id"] for each in report["contained"] if "radiograph" in each["id"]] == ["radiograph-1"]


def test_what_was_left_out_is_still_told_after_a_delivery_that_failed(
    fetching: httpx.Client, archive: FakeArchive
) -> None:
    archive.put(hand(1))
    archive.put(hand(2, **SECOND))
    archive.keeps = False
    asked = fetching.post(f"/dicom-web/studies/{STUDY}/analyze?pacs=main").json()["id"]
    wait_until(lambda: "does not find them yet" in str(fetching.get(f"/jobs/{asked}").json()["reason"]))
    archive.keeps = True
    job = finished(fetching, asked)
    assert job["state"] == "delivered"
    assert f"{STUDY}.1.2: It belongs to another patient" in str(job["reason"])


def test_late_view_of_a_study_whose_files_are_gone_is_judged_with_the_archives(
    service: Replica, archive: FakeArchive, tmp_path: Path
) -> None:
    hospital = replace(hospital_at(tmp_path, settle=0.1), archives={"main": archive.config}, destination="main")
    with serving(assemble(service.settings, service.predictor.bundle, hospital)) as client:
        finished(client, stow(client, related(hand(1))).headers["x-jobs"])
        hospital.jobs.purge_answered(timedelta(0))
        archive.put(hand(1))
        second = finished(client, stow(client, related(hand(2))).headers["x-jobs"])
    assert (second["version"], second["reason"]) == (2, None)
    report = dataset_of(archive.reports(STUDY)[-1]).to_json()
    assert all(f"{STUDY}.1.{number}" in report for number in (1, 2))


def test_late_view_of_a_study_whose_files_are_nowhere_says_which_are_missing(service: Replica, tmp_path: Path) -> None:
    hospital = hospital_at(tmp_path, settle=0.1)
    with serving(assemble(service.settings, service.predictor.bundle, hospital)) as client:
        finished(client, stow(client, related(hand(1))).headers["x-jobs"])
        hospital.jobs.purge_answered(timedelta(0))
        second = finished(client, stow(client, related(hand(2))).headers["x-jobs"])
        (report,) = reports(client)
    assert f"{STUDY}.1.1: It was sent earlier and its file is no longer kept" in str(second["reason"])
    assert report.CompletionFlag == "PARTIAL"
    assert f"Not judged: {STUDY}.1.1." in report.to_json()


def test_request_for_what_has_not_changed_makes_no_second_pair(fetching: httpx.Client, archive: FakeArchive) -> None:
    archive.put(hand(1))
    first, again = fetch(fetching), fetch(fetching)
    assert [job["state"] for job in (first, again)] == ["delivered", "delivered"]
    assert again["version"] == 2
    assert len(archive.reports(STUDY)) == 1


def result(number: int) -> tuple[Instance, bytes]:
    data = dicom(
        np.full((16, 16), number, np.uint8), StudyInstanceUID=STUDY, SeriesInstanceUID="1.9", SOPInstanceUID="1.9.1"
    )
    return Instance("1.9", "1.9.1", "1.2.840.10008.5.1.4.1.1.1.1", data), compute_fingerprint(data)


def deliver_to(archive: FakeArchive, service: Replica, ours: Instance, proof: bytes) -> None:
    async def run() -> None:
        own = assemble(service.settings, service.predictor.bundle)
        try:
            async with ArchiveThreads().connect("main", archive.config) as opened:
                await deliver(own.results, opened, STUDY, [ours], {ours.instance_uid: {proof}})
        finally:
            await own.results.close()

    asyncio.run(run())


@pytest.mark.parametrize("planted", [True, False])
def test_what_an_archive_has_under_a_results_uid_counts_only_if_it_is_the_result(
    service: Replica, archive: FakeArchive, planted: bool
) -> None:
    (ours, proof), (forged, _) = result(1), result(2)
    if planted:
        archive.put(forged.data)
        archive.keeps = False  # it has that UID already
        with pytest.raises(ArchiveRefusedError, match="a different object than the result"):
            deliver_to(archive, service, ours, proof)
    else:
        deliver_to(archive, service, ours, proof)
        deliver_to(archive, service, ours, proof)
        assert archive.asked.count("/dicom-web/studies") == 1


def test_archive_that_takes_results_and_loses_them_is_asked_again_later(service: Replica, archive: FakeArchive) -> None:
    archive.keeps = False
    ours, proof = result(1)
    with pytest.raises(ArchiveUnavailableError, match="does not find them yet"):
        deliver_to(archive, service, ours, proof)
