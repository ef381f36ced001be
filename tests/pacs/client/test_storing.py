"""STOW-RS requests, and which responses count as stored."""

import json

import pytest
from pydicom import Dataset

from pacs.client.archive import Archive
from pacs.client.configuration import ArchiveConfig
from pacs.client.wado_response import extract_dicom
from pacs.errors import ArchiveRefusedError
from tests.dicom_files import CANARY, saved
from tests.pacs.archives import UIDS, instance, raises
from tests.pacs.client.test_http_session import DICOM_JSON, Reply, Request, answering, archive_that_answers

pytestmark = pytest.mark.slow

STUDY = f"{UIDS}.1"


def test_a_large_object_is_sent_whole_with_its_length_as_a_file() -> None:
    sent: list[Request] = []
    stored = instance(1, 1, PixelData=bytes(3 << 20))
    plain = Dataset(stored)  # as a program makes it: no preamble
    plain.file_meta = stored.file_meta

    def reply(request: Request) -> Reply:
        sent.append(request)
        return 200, {"Content-Type": DICOM_JSON}, b"{}"

    with answering(reply) as url, Archive("main", ArchiveConfig(url + "/")) as archive:
        archive.store([plain])
    (request,) = sent
    assert request.path == "/dicom-web/studies"
    assert request.headers["Accept"] == DICOM_JSON
    assert request.headers["Transfer-Encoding"] is None
    assert extract_dicom(request.headers["Content-Type"], request.body) == saved(stored)


def test_files_are_sent_byte_for_byte_even_where_no_library_could_read_them() -> None:
    sent: list[Request] = []

    def reply(request: Request) -> Reply:
        sent.append(request)
        return 200, {"Content-Type": DICOM_JSON}, b"{}"

    files = [bytes(range(256)) * 9, b"\r\n--\r\n"]
    with answering(reply) as url, Archive("main", ArchiveConfig(url)) as archive:
        archive.store_files(files)
        archive.store_files([])
    (request,) = sent
    assert request.headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert extract_dicom(request.headers["Content-Type"], request.body) == files[0]
    assert request.body.count(b"\r\nContent-Type: application/dicom\r\n") == 2
    assert b"\r\n\r\n" + files[1] + b"\r\n--" in request.body


def failed(reason: int | None) -> bytes:
    reply, item = Dataset(), Dataset()
    item.ReferencedSOPInstanceUID = f"{STUDY}.1.1"
    if reason is not None:
        item.FailureReason = reason
    reply.FailedSOPSequence = [item]
    return reply.to_json().encode()


@pytest.mark.parametrize("status", [200, 202, 409])
@pytest.mark.parametrize("kind", [DICOM_JSON, f"{DICOM_JSON}; charset=utf-8", "application/json"])
def test_an_instance_that_was_not_stored_is_refused_with_its_reason(status: int, kind: str) -> None:
    with (
        archive_that_answers(status, failed(0xA900), Content_Type=kind) as archive,
        raises(ArchiveRefusedError, "main", f"{STUDY}.1.1", "0xA900"),
    ):
        archive.store([instance(1, 1)])


def test_a_reason_may_be_missing_and_a_conflict_may_say_nothing() -> None:
    saying_nothing = archive_that_answers(200, failed(None), Content_Type=DICOM_JSON)
    with saying_nothing as archive, raises(ArchiveRefusedError, "not given"):
        archive.store([instance(1, 1)])
    conflict = archive_that_answers(409, b"<html/>", Content_Type="text/html")
    with conflict as archive, raises(ArchiveRefusedError, "409"):
        archive.store([instance(1, 1)])


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize(
    "body", [b"", json.dumps({"00081198": {"vr": "SQ"}, "00081199": {"vr": "SQ", "Value": [{}]}}).encode()]
)
def test_an_empty_list_of_failures_is_success(status: int, body: bytes) -> None:
    with archive_that_answers(status, body, Content_Type=DICOM_JSON) as archive:
        archive.store([instance(1, 1)])


@pytest.mark.filterwarnings("ignore:A value of type")
def test_what_cannot_be_written_is_refused_without_its_values() -> None:
    dataset = instance(1, 1)
    dataset.add_new("Rows", "US", CANARY)
    with archive_that_answers(200) as archive, raises(ArchiveRefusedError, dataset.SOPInstanceUID):
        archive.store([dataset])
