"""A DICOM file may be posted wherever a PNG may, gives the same answer, and can do no harm."""

import asyncio
import logging
import resource
import struct
from functools import cache
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from app.replica import Replica, assemble
from tests.app.conftest import png, serving
from tests.dicom_files import ENCODERS, NATIVE, dicom, encapsulated, inflating, make_header
from tests.phantoms import draw_phantom
from tests.waiting import wait_until
from xray.sandbox import pool as process_pool

pytestmark = pytest.mark.slow

PHANTOM = draw_phantom(seed=7, fracture=True)


def posted(client: httpx.Client, body: bytes, path: str = "/classify") -> httpx.Response:
    return client.post(path, content=body, headers={"Content-Type": "application/dicom"})


@pytest.mark.parametrize("syntax", [*NATIVE, *ENCODERS], ids=lambda syntax: syntax.name)
def test_same_radiograph_as_png_and_as_dicom_has_the_same_probability(client: httpx.Client, syntax: UID) -> None:
    expected = client.post("/classify", files={"file": png(PHANTOM)}).json()
    answered = posted(client, dicom(PHANTOM, 8, syntax)).json()
    assert answered["probability"] == expected["probability"]
    assert answered["radiographs"][0]["logit"] == expected["radiographs"][0]["logit"]


def test_either_photometric_interpretation_has_the_same_probability(client: httpx.Client) -> None:
    inverse = dicom(255 - PHANTOM, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    answers = [posted(client, body).json()["probability"] for body in (dicom(PHANTOM), inverse)]
    assert answers[0] == answers[1]


def test_reply_tells_the_facts_of_the_file_and_none_of_another_image(client: httpx.Client) -> None:
    study = [("file", ("1.dcm", dicom(PHANTOM))), ("file", ("2.png", png(PHANTOM)))]
    radiographs = client.post("/classify", files=study).json()["radiographs"]
    assert radiographs[0]["dicom"] == {
        "study_uid": "1.2.826.0.1.3680043.10.1338.1",
        "series_uid": "1.2.826.0.1.3680043.10.1338.2",
        "instance_uid": "1.2.826.0.1.3680043.10.1338.3",
        "body_part": "XR_HAND",
        "laterality": "L",
        "view": "PA",
        "spacing": [0.15, 0.15],
    }
    assert radiographs[1]["dicom"] is None


OTHER_STUDY: dict[str, Any] = {"StudyInstanceUID": "1.2.826.0.1.3680043.10.1338.9"}
OTHER_PATIENT: dict[str, Any] = {"PatientID": "OTHER-99", "PatientName": "Other^Olga"}


@pytest.mark.parametrize("path", ["/classify", "/retrieve", "/analyze"])
@pytest.mark.parametrize(("other", "reason"), [(OTHER_STUDY, "another study"), (OTHER_PATIENT, "another patient")])
def test_radiographs_of_two_studies_or_patients_are_not_pooled(
    client: httpx.Client, path: str, other: dict[str, Any], reason: str
) -> None:
    files = (dicom(PHANTOM), png(PHANTOM), dicom(PHANTOM[:, ::-1], **other))
    reply = client.post(path, files=[("file", (f"{number}.dcm", data)) for number, data in enumerate(files)])
    assert (reply.status_code, reply.json()["type"]) == (422, "urn:osteon:error:MixedStudyError")
    assert reply.json()["detail"].startswith("Radiograph 3 of 3: ")
    assert reason in reply.json()["detail"]
    assert "99" not in reply.text


def test_file_without_a_study_uid_does_not_join_two_studies(client: httpx.Client) -> None:
    files = (dicom(PHANTOM), dicom(PHANTOM[::-1], StudyInstanceUID=""), dicom(PHANTOM[:, ::-1], **OTHER_STUDY))
    reply = client.post("/classify", files=[("file", (f"{number}.dcm", data)) for number, data in enumerate(files)])
    assert (reply.status_code, reply.json()["type"]) == (422, "urn:osteon:error:MixedStudyError")


def test_views_of_one_study_are_pooled_where_the_name_was_corrected_between_them(client: httpx.Client) -> None:
    files = (dicom(PHANTOM), dicom(PHANTOM[:, ::-1], PatientName="Canary^Birdie"))
    reply = client.post("/classify", files=[("file", (f"{number}.dcm", data)) for number, data in enumerate(files)])
    assert len(reply.json()["radiographs"]) == 2


@pytest.mark.parametrize("path", ["/cam", "/retrieve", "/analyze"])
def test_every_endpoint_takes_it(client: httpx.Client, path: str) -> None:
    reply = posted(client, dicom(PHANTOM), path)
    assert reply.status_code == HTTPStatus.OK
    same = client.post(path, files={"file": ("radiograph", png(PHANTOM))})
    if path != "/analyze":
        assert reply.content == same.content


@cache
def bombs() -> dict[str, bytes]:
    large = {"Rows": 30000, "Columns": 30000}
    return {
        "deflated": inflating(dicom(PHANTOM, 8, DeflatedExplicitVRLittleEndian), 400 << 20),
        "run-length": encapsulated(make_header(PHANTOM, syntax=RLELossless, **large), bytes(4000)),
        "jpeg 2000": encapsulated(
            make_header(PHANTOM, syntax=JPEG2000Lossless, Rows=160, Columns=128), bytes(range(200)) * 20
        ),
        "jpeg 2000 of other size": dicom(np.tile(PHANTOM, (30, 30)), 8, JPEG2000Lossless).replace(
            (30 * 160).to_bytes(2, "little"), (160).to_bytes(2, "little"), 1
        ),
        "jpeg 2000 of no end": dicom(PHANTOM, 8, JPEG2000Lossless).replace(
            struct.pack(">2I", 128, 160), struct.pack(">2I", 2**31 - 1, 1), 1
        ),
        "cut": dicom(PHANTOM)[:-5000],
        "nothing but a preamble": bytes(128) + b"DICM",
        "CT": dicom(PHANTOM, Modality="CT"),
        "constant": dicom(np.full((160, 128), 9, np.uint8)),
    }


@pytest.mark.parametrize("name", bombs())
def test_hostile_file_is_refused_and_the_next_is_fine(client: httpx.Client, name: str) -> None:
    refused = posted(client, bombs()[name])
    assert refused.status_code in (
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    )
    assert refused.json()["detail"]
    assert posted(client, dicom(PHANTOM)).status_code == HTTPStatus.OK


def test_hostile_files_take_no_memory_that_stays(client: httpx.Client) -> None:
    assert posted(client, dicom(PHANTOM)).status_code == HTTPStatus.OK
    before = resident_bytes()
    for bomb in [*bombs().values(), *bombs().values()]:
        posted(client, bomb)
    assert resident_bytes() - before < 200 << 20


def resident_bytes() -> int:
    """Of this process, in which the service runs, and of its decoders."""
    pages = [int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in ["self", *children()]]
    return sum(pages) * resource.getpagesize()


def children() -> list[str]:
    """Processes that this one has started, by number."""
    return list(chain(*(task.read_text().split() for task in Path("/proc/self/task").glob("*/children"))))


def test_process_is_kept_for_the_next_file_and_given_up_after_some(
    service: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def counted(*command: str, **options: Any) -> asyncio.subprocess.Process:
        started.append(await start(*command, **options))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", counted)
    monkeypatch.setattr(process_pool, "MAX_REQUESTS_PER_PROCESS", 3)
    with serving(assemble(service.settings, service.predictor.bundle)) as client:
        for number in range(4):
            assert posted(client, dicom(draw_phantom(seed=number))).status_code == HTTPStatus.OK
    assert len(started) == 2
    assert all(process.returncode == 0 for process in started)


SWELLS_AT_ONCE = """exec "$0" -c '
import sys
from xray.images.decoding import decoder_worker
answer, kept = decoder_worker.handle_request, []
def answer_and_swell(*file):
    answer(*file)
    kept.append(b"x" * decoder_worker.MAX_RESIDENT_BYTES)
decoder_worker.handle_request = answer_and_swell
decoder_worker.main()
' "$3" """
"""A process that is found to hold too much after its first file."""


def test_process_that_a_file_made_swell_ends_and_another_takes_its_place(
    service: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pool, "COMMAND_PREFIX", ("sh", "-c", SWELLS_AT_ONCE))
    with serving(assemble(service.settings, service.predictor.bundle)) as client:
        before = len(children())
        for number in range(3):
            assert posted(client, dicom(draw_phantom(seed=number))).status_code == HTTPStatus.OK
        wait_until(lambda: len(children()) == before)


def test_patient_is_in_no_reply_and_no_log(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="Canary"):
        odd = dicom(PHANTOM, Modality="Canary^Bird", BodyPartExamined="Canary^Bird")
    bodies = [dicom(PHANTOM), *bombs().values(), odd]
    caplog.clear()
    capfd.readouterr()
    caplog.set_level(logging.DEBUG)
    told = "".join(posted(client, body, path).text for body in bodies for path in ("/classify", "/analyze?cam=none"))
    said = capfd.readouterr()
    written = told + caplog.text + said.out + said.err + client.get("/metrics").text
    assert "canary^" not in written.lower()
    assert not {"CANARY-4711", "CANARY-0815", "19010203"} & set(written.replace('"', " ").split())
