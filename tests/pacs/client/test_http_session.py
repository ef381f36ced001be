"""How the session handles secrets, TLS, timeouts and malformed responses of small local servers."""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pacs.client.archive import Archive
from pacs.client.configuration import ArchiveConfig
from pacs.errors import ArchiveRefusedError, ArchiveUnavailableError, PacsError, StudyMissingError
from tests.dicom_files import CANARY
from tests.pacs.archives import UIDS, instance, raises

STUDY = f"{UIDS}.1"
DICOM_JSON = "application/dicom+json"
QUERY = {"PatientName": CANARY}
Reply = tuple[int, Mapping[str, str], bytes]


class Request(BaseHTTPRequestHandler):
    """One request of a client, read to its end."""

    body: bytes


@contextmanager
def answering(reply: Callable[[Request], Reply]) -> Iterator[str]:
    """Run a server that gives these replies; yield its URL."""

    class Handler(Request):
        def do_GET(self) -> None:
            self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = reply(self)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/dicom-web"
        finally:  # or a test that fails leaves a thread that keeps the tests from ending
            server.shutdown()


@contextmanager
def archive_that_answers(status: int, body: bytes = b"", **headers: str) -> Iterator[Archive]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with answering(lambda _: (status, named, body)) as url, Archive("main", ArchiveConfig(url)) as archive:
        yield archive


def test_a_rotated_token_works_at_once(tmp_path: Path) -> None:
    accepted, seen = ["first-token"], []

    def reply(request: BaseHTTPRequestHandler) -> Reply:
        seen.append(request.headers["Host"])
        good = request.headers["Authorization"] == f"Bearer {accepted[0]}"
        return (200 if good else 401), {"Content-Type": DICOM_JSON}, b"[]"

    token = tmp_path / "token"
    token.write_text("first-token\n")
    with answering(reply) as url, Archive("main", ArchiveConfig(url, bearer_file=token)) as archive:
        assert archive.search_studies(QUERY) == []
        accepted[0] = "second-token"
        with raises(ArchiveRefusedError, "main", "401"):
            archive.search_studies(QUERY)
        token.write_text("second-token")
        assert archive.search_studies(QUERY) == []
        assert set(seen) == {url.split("/")[2]}  # with the port


@pytest.mark.parametrize("secret", ["", "two\nlines", "töken"])
def test_what_is_no_token_is_not_sent(secret: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(secret)
    config = ArchiveConfig("http://127.0.0.1:9/", bearer_file=tmp_path / "token")
    with Archive("main", config) as archive, pytest.raises(PacsError, match="holds no secret") as caught:
        archive.search_studies(QUERY)
    assert not secret or secret not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_an_archive_that_never_answers_is_unavailable_within_the_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = ArchiveConfig(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_seconds=0.3)
        with Archive("main", config) as archive, raises(ArchiveUnavailableError, "main", "in time"):
            archive.search_studies(QUERY)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (500, ArchiveUnavailableError),
        (503, ArchiveUnavailableError),
        (429, ArchiveUnavailableError),
        (400, ArchiveRefusedError),
        (403, ArchiveRefusedError),
        (404, ArchiveRefusedError),
    ],
)
def test_a_status_tells_whether_to_ask_again_and_is_asked_once(status: int, error: type[PacsError]) -> None:
    asked: list[str] = []

    def reply(request: BaseHTTPRequestHandler) -> Reply:
        asked.append(request.path)
        return status, {"Content-Type": "text/plain"}, CANARY.encode()

    with answering(reply) as url, Archive("main", ArchiveConfig(url)) as archive:
        with raises(error, "main", str(status)):
            archive.search_studies(QUERY)
        with raises(error, "main", str(status)):
            archive.store([instance(1, 1)])
    assert len(asked) == 2


def test_a_study_that_is_not_found_is_missing() -> None:
    with archive_that_answers(404) as archive:
        with raises(StudyMissingError, STUDY):
            archive.series(STUDY)
        assert not archive.has_instances(STUDY, [f"{STUDY}.1"])


def test_no_content_means_no_match() -> None:
    with archive_that_answers(204) as archive:
        assert archive.search_studies(QUERY) == []
        assert not archive.has_instances(STUDY, [f"{STUDY}.1"])


def test_a_redirect_is_not_followed() -> None:
    with archive_that_answers(302, Location="http://127.0.0.1:9/elsewhere") as archive:
        with raises(ArchiveRefusedError, "main", "redirects"):
            archive.search_studies(QUERY)
        with raises(ArchiveRefusedError, "main", "redirects"):
            archive.store([instance(1, 1)])


@pytest.mark.parametrize(
    "body", [b"<html>Canary^Bird</html>", b'["Canary^Bird"]', b'[{"0020000D": {"Value": [7, "Canary^Bird"]}}, 3]']
)
def test_an_answer_that_is_no_dicom_json_is_refused(body: bytes) -> None:
    with archive_that_answers(200, body, Content_Type=DICOM_JSON) as archive, raises(ArchiveRefusedError, "main"):
        archive.search_studies(QUERY)
