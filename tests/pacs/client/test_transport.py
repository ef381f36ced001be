"""A faulty archive cannot hold threads or memory beyond its limits."""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from pacs.client.archive import Archive
from pacs.client.configuration import ArchiveConfig
from pacs.client.qido_json import InstanceReference
from pacs.client.transport import MAX_RESPONSE_BYTES
from pacs.errors import ArchiveRefusedError, ArchiveUnavailableError, PacsError, TooLargeError
from tests.pacs.archives import UIDS, instance, raises
from tests.pacs.client.test_http_session import DICOM_JSON, archive_that_answers
from tests.pacs.faulty_server import OK, faulty_server, running
from tests.waiting import HUNG_SECONDS

pytestmark = pytest.mark.slow

STUDY = f"{UIDS}.1"
WANTED = InstanceReference(STUDY, f"{STUDY}.1", f"{STUDY}.1.1", "", "DX")
DRIPS = {
    "status line": (b"HTTP/1.1 2", b"0"),
    "header": (OK + b"X-Long: ", b"x"),
    "headers without end": (OK, b"X: y\r\n"),
    "continue without end": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body of a length": (OK + b"Content-Length: 100000\r\n\r\n[", b" "),
    "body without a length": (OK + b"Connection: close\r\n\r\n[", b" "),
    "length of a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
}
REPLY_SECONDS = 0.5


def opened(url: str, **changed: Any) -> Archive:
    return Archive("main", ArchiveConfig(url, **{"timeout_seconds": 30, "reply_seconds": REPLY_SECONDS, **changed}))


@pytest.mark.parametrize("place", DRIPS)
def test_reply_that_drips_is_ended_after_its_time(place: str) -> None:
    with faulty_server(*DRIPS[place]) as server, opened(server.url) as archive:
        with raises(ArchiveUnavailableError, "main", "more than 0.5 s"):
            archive.series(STUDY)
        assert server.left.wait(HUNG_SECONDS)


def test_file_that_drips_and_stored_object_without_a_reply_are_ended_too() -> None:
    related = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/related; boundary=cut\r\n\r\n--cut\r\n\r\n"
    with (
        faulty_server(related, b"x") as server,
        opened(server.url) as archive,
        raises(ArchiveUnavailableError, "more than"),
    ):
        archive.retrieve_instance(WANTED)
    with faulty_server(b"", b"") as server, opened(server.url) as archive, raises(ArchiveUnavailableError, "more than"):
        archive.store([instance(1, 1)])


def test_another_archive_answers_after_one_was_ended() -> None:
    with (
        archive_that_answers(200, b"[]", Content_Type=DICOM_JSON) as archive,
        faulty_server(*DRIPS["chunks"]) as server,
    ):
        with opened(server.url) as slow, raises(ArchiveUnavailableError, "more than"):
            slow.series(STUDY)
        assert archive.search_studies({}) == []


@pytest.mark.parametrize("place", ["header", "chunks"])
def test_closing_an_archive_ends_what_another_thread_waits_for(place: str) -> None:
    with faulty_server(*DRIPS[place]) as server:
        archive = opened(server.url, reply_seconds=600)
        thread, raised = running(lambda: archive.series(STUDY))
        assert server.asked.wait(HUNG_SECONDS)
        archive.close()
        thread.join(HUNG_SECONDS)
        assert not thread.is_alive()
        assert isinstance(raised[0], PacsError)
        with pytest.raises(PacsError):
            archive.series(STUDY)


@pytest.fixture
def traced() -> Iterator[None]:
    """Measure the peak of Python's memory in the test with `tracemalloc`."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


ENDLESS = {
    "without a length": OK + b"Connection: close\r\n\r\n",
    "error": b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n",
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nConnection: close\r\n\r\n",
    "conflict": b"HTTP/1.1 409 Conflict\r\nConnection: close\r\n\r\n",
}


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_answer_is_refused_at_the_limit(kind: str) -> None:
    with (
        faulty_server(ENDLESS[kind], b" " * (1 << 20), pause=0) as server,
        opened(server.url, reply_seconds=60) as archive,
    ):
        with pytest.raises(PacsError):
            archive.series(STUDY)
        assert server.left.wait(HUNG_SECONDS)
    assert tracemalloc.get_traced_memory()[1] < 4 * MAX_RESPONSE_BYTES


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(("encoding", "bits"), [("gzip", 31), ("deflate", 15), ("gzip, gzip", 31)])
def test_compressed_answer_is_refused_at_the_limit_of_what_it_inflates_to(encoding: str, bits: int) -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, bits)
    body = b"".join(deflater.compress(b" " * (1 << 20)) for _ in range(256)) + deflater.flush()
    if "," in encoding:
        body = gzip.compress(body)
    with (
        archive_that_answers(200, body, Content_Type=DICOM_JSON, Content_Encoding=encoding) as archive,
        raises(TooLargeError, "main", f"{MAX_RESPONSE_BYTES} bytes"),
    ):
        archive.search_studies({})
    assert tracemalloc.get_traced_memory()[1] < 4 * MAX_RESPONSE_BYTES


def test_instance_that_inflates_beyond_its_limit_is_named() -> None:
    body = gzip.compress(bytes(1 << 20))
    with (
        archive_that_answers(200, body, Content_Type="application/dicom", Content_Encoding="gzip") as archive,
        raises(TooLargeError, WANTED.instance_uid, "1000 bytes"),
    ):
        archive.retrieve_instance(WANTED, max_bytes=1000)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b"<html>log in</html>", "not JSON"),
        (b"[1]", "not a list of DICOM data sets"),
        (b'{"error": "Canary^Bird"}', "no UID in (0020,000E)"),
        (b'[{"0020000E": {"vr": "UI", "Value": ["1..2"]}}]', "no UID in (0020,000E)"),
        (b'[{"0020000E": 7}]', "no UID in (0020,000E)"),
    ],
)
def test_answer_that_cannot_be_used_is_refused_with_the_true_reason(body: bytes, reason: str) -> None:
    with archive_that_answers(200, body, Content_Type=DICOM_JSON) as archive, raises(ArchiveRefusedError, reason):
        archive.series(STUDY)


def test_file_of_another_media_type_is_refused_without_its_header() -> None:
    reason = "another media type than multipart/related or application/dicom"
    with (
        archive_that_answers(200, b"<html>", Content_Type="text/Canary^Bird") as archive,
        raises(ArchiveRefusedError, reason),
    ):
        archive.retrieve_instance(WANTED)


@pytest.mark.parametrize("uid", ["1..2", "..", ".", "1.2.", "1.2.3/../4", "1.2\n", "", "1" * 65, "1.2 "])
def test_what_is_no_uid_is_refused_as_such(uid: str) -> None:
    with archive_that_answers(200, b"[]", Content_Type=DICOM_JSON) as archive:
        with raises(ArchiveRefusedError, "not a valid DICOM UID"):
            archive.series(uid)
        with raises(ArchiveRefusedError, "not a valid DICOM UID"):
            archive.has_instances(uid, ["1.2"])


def refused(uid: str, reason: object) -> bytes:
    item = {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}
    return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()


def test_refused_object_is_named_only_by_a_uid_and_a_code() -> None:
    with (
        archive_that_answers(
            202, refused("1.2\n2026 CRITICAL forged \x1b[31m", 272), Content_Type=DICOM_JSON
        ) as archive,
        raises(ArchiveRefusedError, "did not store an instance (reason 0x0110)"),
    ):
        archive.store([instance(1, 1)])
    with (
        archive_that_answers(409, refused("1.2", "Canary^Bird"), Content_Type=DICOM_JSON) as archive,
        raises(ArchiveRefusedError, "did not store 1.2 (reason not given)"),
    ):
        archive.store([instance(1, 1)])


def test_object_that_the_archive_has_already_is_no_failure() -> None:
    with archive_that_answers(409, refused("1.2", 0x0111), Content_Type=DICOM_JSON) as archive:
        archive.store([instance(1, 1)])


def test_study_that_the_archive_does_not_name_is_left_out_of_a_search(caplog: pytest.LogCaptureFixture) -> None:
    found = [{"0020000D": {"vr": "UI", "Value": [uid]}} for uid in ("1.2", "Canary^Bird")]
    with archive_that_answers(200, json.dumps(found).encode(), Content_Type=DICOM_JSON) as archive:
        assert [study.study_uid for study in archive.search_studies({})] == ["1.2"]
    assert "1 matches have no Study Instance UID" in caplog.text
