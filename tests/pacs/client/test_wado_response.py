"""Responses to WADO-RS and endless searches, from servers that repeat the quirks of real archives."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest

from pacs.client.archive import MAX_MATCHES, Archive
from pacs.client.configuration import ArchiveConfig
from pacs.client.wado_response import extract_dicom
from pacs.errors import ArchiveRefusedError, ArchiveUnavailableError
from tests.pacs.archives import UIDS, raises
from tests.pacs.client.test_http_session import DICOM_JSON, Reply, answering

STUDY, SOP_CLASS = f"{UIDS}.1", "1.2.840.10008.5.1.4.1.1.1.1"
FILE = bytes(128) + b"DICM--cut\r\n\r\n--"
PART = b"Content-Type: application/dicom\r\n\r\n" + FILE


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ('multipart/related; type="application/dicom"; boundary=cut', b"--cut\r\n" + PART + b"\r\n--cut--"),
        ('Multipart/Related;boundary="cut";type=application/dicom', b"\r\n--cut\r\n" + PART + b"\r\n--cut--\r\n"),
        ("multipart/related; boundary=cut", b"a preamble\r\n\r\n--cut\r\n" + PART + b"\r\n--cut--\r\nan epilogue"),
        ("application/dicom", FILE),
        ("application/dicom; transfer-syntax=1.2.840.10008.1.2.1", FILE),
        ("application/octet-stream", FILE),
        ("", FILE),
    ],
)
def test_the_file_is_found_in_every_wrapping(content_type: str, body: bytes) -> None:
    assert extract_dicom(content_type, body) == FILE


def test_a_file_without_its_end_was_cut_off() -> None:
    with raises(ArchiveUnavailableError, "closed the connection"):
        extract_dicom("multipart/related; boundary=cut", b"--cut\r\n" + PART)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html", b"<html>please log in</html>"),
        ("", b"\r\n--cut\r\n" + PART + b"\r\n--cut--"),
        ("multipart/related", b"\r\n--cut\r\n" + PART + b"\r\n--cut--"),
        ("multipart/related; boundary=cut", b""),
        ("multipart/related; boundary=cut", b"--cut--\r\n"),
        ("multipart/related; boundary=gone", b"--other\r\n" + PART + b"\r\n--other--"),
    ],
)
def test_what_holds_no_file_is_an_error(content_type: str, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"another media type|has no part"):
        extract_dicom(content_type, body)


def match(**values: str) -> dict[str, object]:
    tags = {"series": "0020000E", "instance": "00080018", "sop_class": "00080016", "modality": "00080060"}
    return {tags[name]: {"vr": "UI", "Value": [value]} for name, value in values.items()}


def searches(request: BaseHTTPRequestHandler, series: list[str]) -> Reply | None:
    """Answer a search with one instance in each series, whatever the offset."""
    path = urlsplit(request.path).path
    if path.endswith("/series"):
        found = [match(series=uid, modality="DX") for uid in series]
    elif path.endswith("/instances"):
        uid = path.split("/")[-2]
        found = [match(instance=f"{uid}.1", sop_class=SOP_CLASS)]
    else:
        return None
    return 200, {"Content-Type": DICOM_JSON}, json.dumps(found).encode()


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def archive(asked: list[str]) -> Iterator[Archive]:
    """An archive of two series that ignores offsets, and whose second file is cut off."""

    def reply(request: BaseHTTPRequestHandler) -> Reply:
        answer = searches(request, [f"{STUDY}.1", f"{STUDY}.2"])
        if answer is not None:
            return answer
        asked.append(request.headers["Accept"])
        if len(asked) == 1:
            return 200, {"Content-Type": "multipart/related; boundary=cut"}, b"--cut\r\n" + PART + b"\r\n--cut--"
        return 200, {"Content-Type": "application/dicom", "Content-Length": "5000"}, FILE

    with answering(reply) as url, Archive("main", ArchiveConfig(url)) as opened:
        yield opened


def test_an_archive_that_ignores_offsets_is_read_once(archive: Archive) -> None:
    assert [each.series_uid for each in archive.series(STUDY)] == [f"{STUDY}.1", f"{STUDY}.2"]


def test_files_come_one_by_one_and_an_error_in_place_of_its_own(archive: Archive, asked: list[str]) -> None:
    files = archive.retrieve(STUDY)
    assert asked == []
    assert next(files) == FILE
    assert len(asked) == 1  # the second was not asked for yet
    with raises(ArchiveUnavailableError, "main"):
        next(files)
    assert all("transfer-syntax=*" in accept for accept in asked)


def test_a_search_that_never_ends_is_refused() -> None:
    def reply(request: BaseHTTPRequestHandler) -> Reply:
        offset = int(parse_qs(urlsplit(request.path).query).get("offset", ["0"])[0])
        found = [match(series=f"{STUDY}.{offset + number}") for number in range(1000)]
        return 200, {"Content-Type": DICOM_JSON}, json.dumps(found).encode()

    with (
        answering(reply) as url,
        Archive("main", ArchiveConfig(url)) as archive,
        raises(ArchiveRefusedError, str(MAX_MATCHES)),
    ):
        archive.series(STUDY)
