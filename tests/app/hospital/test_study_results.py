"""Whatever a study holds, its results are bounded, say what was left out, and harm nobody else."""

import asyncio
import io
import logging
import tracemalloc
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from app.hospital import analysis
from app.hospital.analysis import analyze_study
from app.replica import Replica, assemble
from pacs.instance import Instance
from pacs.queue.job import Job, JobState
from pacs.results.result import MORE_LEFT_OUT, StudyFinding
from tests.app.api.test_stow_rs import STUDY, finished, hand, hospital_at, related, stow
from tests.app.conftest import serving
from tests.dicom_files import CANARY, dicom
from tests.pacs.raw_files import element, raw_file, sequence
from tests.pacs.results.test_patient_attributes import HOSTILE, OTHER_IDS, nested
from tests.phantoms import draw_phantom
from xray.sandbox import pool as process_pool

pytestmark = pytest.mark.slow

NO_RESULT_PROCESS = ("sh", "-c", 'case "$2" in pacs.*) exit 1;; esac; exec "$0" "$@"')
SLEEPING_RESULT_PROCESS = ("sh", "-c", 'case "$2" in pacs.*) echo; exec sleep 60;; esac; exec "$0" "$@"')
DYING_RESULT_PROCESS = ("sh", "-c", 'case "$2" in pacs.*) echo; head -c 9; exit 1;; esac; exec "$0" "$@"')


def raw_hand(number: int, **raw: tuple[str, bytes]) -> bytes:
    uid = f"{STUDY}.1.{number}"
    return raw_file(raw, StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.1", SOPInstanceUID=uid)


def results(client: httpx.Client) -> tuple[Dataset, Dataset]:
    """The capture and the report that WADO-RS gives."""
    reply = client.get(f"/dicom-web/studies/{STUDY}")
    boundary = reply.headers["content-type"].split("boundary=")[1].encode()
    files = [part.split(b"\r\n\r\n", 1)[1][:-2] for part in reply.content.split(b"--" + boundary)[1:-1]]
    capture, report = sorted((dcmread(io.BytesIO(file)) for file in files), key=lambda each: str(each.Modality))
    return capture, report


TOO_MUCH = {
    "12 levels": nested(12),
    "1,000 items": sequence(*[element("PatientID", "LO", CANARY.encode() + b" ")] * 1000),
}


@pytest.mark.parametrize("value", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_study_with_a_large_sequence_is_answered_without_it(
    service: Replica, tmp_path: Path, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serving(assemble(service.settings, service.predictor.bundle, hospital_at(tmp_path, settle=0))) as client:
        job = stow(client, related(raw_hand(1, OtherPatientIDsSequence=("SQ", value)))).headers["x-jobs"]
        done = finished(client, job)
        assert (done["state"], done["reason"]) == ("kept", None)
        described = client.get(f"/dicom-web/studies/{STUDY}/metadata")
        assert described.status_code == HTTPStatus.OK
        assert len(described.content) < 100_000
        assert all(OTHER_IDS not in each for each in results(client))
    assert f"Job {job}: 1 attributes" in caplog.text
    assert OTHER_IDS in caplog.text
    assert "CANARY" not in caplog.text.upper()


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_study_with_a_hostile_sequence_ends_at_once_and_the_service_goes_on(
    service: Replica, tmp_path: Path, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serving(assemble(service.settings, service.predictor.bundle, hospital_at(tmp_path, settle=0))) as client:
        reply = stow(client, related(raw_hand(1, OtherPatientIDsSequence=("SQ", value))))
        if "x-jobs" in reply.headers:  # else it was refused on its way in
            done = finished(client, reply.headers["x-jobs"])
            assert done["state"] in ("kept", "refused")
            assert done["attempts"] == 1
        assert finished(client, stow(client, related(hand(1, study="1.2.3"))).headers["x-jobs"])["state"] == "kept"
    assert "CANARY" not in caplog.text.upper()


def test_radiograph_that_brings_its_reader_down_is_refused_and_the_next_study_is_answered(
    service: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(assemble(service.settings, service.predictor.bundle, hospital_at(tmp_path, settle=0))) as client:
        with monkeypatch.context() as patch:
            patch.setattr(process_pool, "ONE_THREAD", DYING_RESULT_PROCESS)
            job = stow(client, related(hand(1, study="1.2.3"))).headers["x-jobs"]
            done = finished(client, job)
        assert done["state"] == "refused"
        assert done["reason"] == "The header cannot be read without crashing the reader; export the file again."
        assert finished(client, stow(client, related(hand(1))).headers["x-jobs"])["state"] == "kept"
        assert client.get("/health/live").status_code == HTTPStatus.OK


def test_header_that_takes_too_long_is_refused_with_that_reason(
    service: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = assemble(service.settings, service.predictor.bundle, hospital_at(tmp_path, settle=0))
    fast.results._seconds = 0.2
    monkeypatch.setattr(process_pool, "ONE_THREAD", SLEEPING_RESULT_PROCESS)
    with serving(fast) as client:
        done = finished(client, stow(client, related(hand(1))).headers["x-jobs"])
        assert (done["state"], str(done["reason"])[:42]) == ("refused", "Reading the header takes more than 0.2 s; ")


def test_study_waits_while_no_process_can_be_started(
    service: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not the study's fault, so the study is not refused."""
    with serving(assemble(service.settings, service.predictor.bundle, hospital_at(tmp_path, settle=0))) as client:
        monkeypatch.setattr(process_pool, "ONE_THREAD", NO_RESULT_PROCESS)
        job = stow(client, related(hand(1))).headers["x-jobs"]
        while (told := client.get(f"/jobs/{job}").json())["reason"] is None:
            client.get("/health/live")
        assert (told["state"], told["reason"]) == ("waiting", "The process that reads headers cannot be started.")


@pytest.mark.parametrize(
    ("name", "setting", "shown"),
    [("max_study_radiographs", 2, "2 radiographs"), ("max_study_pixels", 70_000, "70,000")],
)
def test_radiographs_beyond_the_limit_are_left_out_and_named(
    service: Replica, tmp_path: Path, name: str, setting: int, shown: str
) -> None:
    settings = service.settings.model_copy(update={name: setting})
    with serving(assemble(settings, service.predictor.bundle, hospital_at(tmp_path, settle=0.2))) as client:
        job = stow(client, related(*(hand(number) for number in range(1, 5)))).headers["x-jobs"]
        assert finished(client, job)["state"] == "kept"
        _, report = results(client)
        conclusion = client.get(f"/jobs/{job}/report").json()["conclusion"]
    assert report.CompletionFlag == "PARTIAL"
    assert 0 < len(report.CompletionFlagDescription) <= 64
    written = [str(each.value) for each in report.iterall() if each.keyword == "TextValue"]
    left_out = [each.split()[2].rstrip(".") for each in written if each.startswith("Not judged: ")]
    assert 0 < len(left_out) < 4
    assert all(f"Not judged: {uid}. The study has more than {shown}" in conclusion for uid in left_out)


def test_study_that_was_judged_whole_says_so(service: Replica, tmp_path: Path) -> None:
    with serving(assemble(service.settings, service.predictor.bundle, hospital_at(tmp_path, settle=0.2))) as client:
        job = stow(client, related(hand(1), hand(2))).headers["x-jobs"]
        assert finished(client, job)["state"] == "kept"
        _, report = results(client)
    assert report.CompletionFlag == "COMPLETE"
    assert "CompletionFlagDescription" not in report


def test_name_that_does_not_fit_goes_back_byte_for_byte_and_is_in_no_json(service: Replica, tmp_path: Path) -> None:
    name = "张宁宏".encode("gbk")
    with serving(assemble(service.settings, service.predictor.bundle, hospital_at(tmp_path, settle=0))) as client:
        job = stow(client, related(raw_hand(1, PatientName=("PN", name)))).headers["x-jobs"]
        assert finished(client, job)["state"] == "kept"
        whole = client.get(f"/dicom-web/studies/{STUDY}").content
        assert whole.count(b"\x10\x00\x10\x00PN" + len(name).to_bytes(2, "little") + name) == 2
        for path in ("?StudyInstanceUID=" + STUDY, f"/{STUDY}/series", f"/{STUDY}/instances", f"/{STUDY}/metadata"):
            (first, *_) = client.get(f"/dicom-web/studies{path}").json()
            assert "00100010" not in first
            assert first["00100020"]["Value"] == ["CANARY-4711"]


def job() -> Job:
    now = datetime.now(UTC)
    return Job("1", "1", STUDY, 1, "bab1e6de5b03", None, None, "stow", JobState.RUNNING, 1, now, None, now, now, now)


def studied(service: Replica, files: list[bytes]) -> StudyFinding:
    """What is found in a study of these files, by a service that remembers nothing."""

    async def instances() -> AsyncGenerator[Instance, None]:
        for number, data in enumerate(files, start=1):
            yield Instance(f"{STUDY}.1", f"{STUDY}.1.{number}", "1.2.840.10008.5.1.4.1.1.1.1", data)

    async def run() -> StudyFinding:
        own = assemble(service.settings.model_copy(update={"result_cache_mib": 0}), service.predictor.bundle)
        own.predictor.batcher.start()
        try:
            return await analyze_study(own.predictor, own.results, job(), instances())
        finally:
            await own.predictor.decoder.close()
            await own.results.close()
            await asyncio.to_thread(own.predictor.batcher.stop, 1)
            own.predictor.workers.shutdown()

    return asyncio.run(run())


def test_study_beyond_what_can_be_named_says_that_there_is_more(
    service: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "MAX_LEFT_OUT", 2)
    found = studied(service, [hand(1), *(hand(number, Modality="CT") for number in range(2, 6))])
    assert [uid for uid, _ in found.left_out] == [f"{STUDY}.1.2", f"{STUDY}.1.3"]
    assert found.more_left_out
    assert not found.is_complete
    assert found.not_judged[-1] == MORE_LEFT_OUT


def test_file_of_another_instance_than_was_announced_is_left_out(service: Replica) -> None:
    found = studied(service, [hand(1), hand(7), hand(3, study="1.2.3")])
    assert [uid for uid, _ in found.left_out] == [f"{STUDY}.1.2", f"{STUDY}.1.3"]
    assert len(found.radiographs) == 1


def test_memory_is_the_same_for_four_views_and_for_sixteen(service: Replica) -> None:
    """Each of 6 megapixels, whose pixels and overlay take 24 MB; a picture that is kept takes 2.5 or less."""
    files = [
        dicom(
            np.kron(draw_phantom(seed=number, height=140, width=110), np.ones((20, 20), np.uint8)),
            StudyInstanceUID=STUDY,
            SeriesInstanceUID=f"{STUDY}.1",
            SOPInstanceUID=f"{STUDY}.1.{number}",
        )
        for number in range(1, 17)
    ]
    peaks = []
    for count in (4, 16):
        tracemalloc.start()
        try:
            assert len(studied(service, files[:count]).radiographs) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 40 << 20
