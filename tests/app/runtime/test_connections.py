"""Unusual requests get an answer, and connections that never finish are closed."""

import json
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from app.replica import Replica, assemble
from app.runtime import connections, middleware
from tests.app.conftest import held, png, serving
from tests.phantoms import draw_phantom
from tests.waiting import HUNG_SECONDS

pytestmark = pytest.mark.slow

PHANTOM = png(draw_phantom(seed=1))
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
"""What Java's HttpClient sends with every request that is not encrypted."""


@contextmanager
def connection(client: httpx.Client) -> Iterator[socket.socket]:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=HUNG_SECONDS) as opened:
        yield opened


def reply_of(opened: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next reply."""
    with opened.makefile("rb", buffering=0) as stream:
        line = stream.readline()
        status = int(line.split()[1]) if line else 0
        headers = {}
        while line := stream.readline().strip():
            name, value = line.decode().split(": ", 1)
            headers[name.lower()] = value
        return status, headers, stream.read(int(headers.get("content-length", 0))) or b""


def post(headers: bytes, body: bytes = b"", path: bytes = b"/classify") -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n" + headers + b"\r\n" + body


def is_closed(opened: socket.socket) -> bool:
    """Wait for the end."""
    try:
        while opened.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    return True


def test_offer_of_http2_is_ignored_and_the_body_read(client: httpx.Client) -> None:
    length = b"Content-Length: %d\r\n" % len(PHANTOM)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(PHANTOM), PHANTOM)
    with connection(client) as opened:
        for request in (
            post(H2C + length, PHANTOM),
            post(H2C + b"Transfer-Encoding: chunked\r\n", chunked),
            b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + H2C + b"\r\n",
        ):
            opened.sendall(request)
            status, _, body = reply_of(opened)
            assert status == 200, body


def test_offer_of_a_web_socket_is_ignored(client: httpx.Client) -> None:
    with connection(client) as opened:
        opened.sendall(
            b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert reply_of(opened)[0] == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    "options", [["-F", "file=@-;filename=a.png"], ["-H", "Content-Type: image/png", "--data-binary", "@-"]]
)
def test_curl_that_would_rather_speak_http2_is_answered(client: httpx.Client, options: list[str]) -> None:
    command = ["curl", "-s", "--http2", "--noproxy", "*", *options, f"{client.base_url}/classify"]
    ran = subprocess.run(command, input=PHANTOM, capture_output=True, timeout=HUNG_SECONDS, check=True)
    assert "probability" in json.loads(ran.stdout)


def test_head_up_to_its_limit_is_read_and_a_longer_one_gets_431_however_it_comes(client: httpx.Client) -> None:
    for size, status in (
        (connections.MAX_HEADER_BYTES - 200, 200),
        (connections.MAX_HEADER_BYTES + 200, 431),
        (1 << 20, 431),
    ):
        for pieces in (1, 7):
            with connection(client) as opened:
                head = b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * (size - 60) + b"\r\n\r\n"
                step = -(-len(head) // pieces)
                try:
                    for start in range(0, len(head), step):
                        opened.sendall(head[start : start + step])
                except (BrokenPipeError, ConnectionResetError):
                    assert status == 431  # and the service said so while more was on its way
                    continue
                assert reply_of(opened)[0] == status


def test_what_is_no_http_gets_a_problem(client: httpx.Client) -> None:
    for nonsense in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 is TLS\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    ):
        with connection(client) as opened:
            opened.sendall(nonsense)
            status, headers, body = reply_of(opened)
            assert status == 400
            assert headers["content-type"] == "application/problem+json"
            assert headers["cache-control"] == "no-store"
            assert json.loads(body)["type"] == "urn:osteon:error:MalformedRequestError"


def test_broken_chunk_ends_a_connection_whether_its_request_was_answered_or_not(client: httpx.Client) -> None:
    for path in (b"/classify", b"/nothing"):
        with connection(client) as opened:
            opened.sendall(post(b"Transfer-Encoding: chunked\r\n", b"5\r\nabcde\r\n", path))
            if path == b"/nothing":
                assert reply_of(opened)[0] == 404
            opened.sendall(b"no size\r\n")
            assert is_closed(opened)
    assert client.get("/health/live").status_code == 200


def test_sender_of_60_mb_at_once_sees_the_413(client: httpx.Client) -> None:
    request = urllib.request.Request(f"{client.base_url}/classify", bytes(60_000_000), {"Content-Type": "image/png"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(request, timeout=HUNG_SECONDS)
    assert refused.value.code == 413
    assert json.loads(refused.value.read())["type"].endswith("PayloadTooLargeError")


def test_sender_without_a_declared_length_sees_the_413_too(client: httpx.Client) -> None:
    with connection(client) as opened:
        opened.sendall(post(b"Transfer-Encoding: chunked\r\nConnection: close\r\n"))
        for _ in range(60):
            opened.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
        opened.sendall(b"0\r\n\r\n")
        assert reply_of(opened)[0] == 413


def test_refusal_comes_before_the_body_and_the_connection_serves_on(client: httpx.Client) -> None:
    with connection(client) as opened:
        opened.sendall(post(b"Content-Length: 1000000\r\n", path=b"/nothing"))
        assert reply_of(opened)[0] == 404
        opened.sendall(bytes(1000000) + b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reply_of(opened)[0] == 200


def test_caller_that_waits_to_be_asked_for_its_body_is_asked_or_refused(client: httpx.Client) -> None:
    with connection(client) as opened:
        opened.sendall(post(b"Expect: 100-continue\r\nContent-Length: %d\r\n" % len(PHANTOM)))
        assert opened.recv(1 << 16).startswith(b"HTTP/1.1 100")
        opened.sendall(PHANTOM)
        assert reply_of(opened)[0] == 200
    with connection(client) as opened:
        opened.sendall(post(b"Expect: 100-continue\r\nContent-Length: 99000000\r\n"))
        status, headers, _ = reply_of(opened)
        assert (status, headers["connection"]) == (413, "close")
        assert is_closed(opened)


def test_rest_of_a_body_that_drips_is_not_waited_for(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "DRAIN_TIMEOUT_SECONDS", 0.5)
    with connection(client) as opened:
        opened.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        assert reply_of(opened)[0] == 200
        opened.sendall(b"x")
        assert is_closed(opened)


def test_rest_of_a_body_without_end_is_not_read(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "MAX_DRAIN_BYTES", 1 << 20)
    with connection(client) as opened:
        opened.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        assert reply_of(opened)[0] == 200
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            opened.sendall(bytes(1 << 30))


def test_connections_beyond_the_limit_cost_the_idlest_and_not_those_that_are_served(
    service: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 5)
    engine, held_service = held(service)
    with serving(held_service) as client, connection(client) as served, connection(client) as idle:
        served.sendall(post(b"Content-Length: %d\r\n" % len(PHANTOM), PHANTOM))
        engine.entered.wait(HUNG_SECONDS)
        for _ in range(20):
            with connection(client) as further:
                further.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                assert reply_of(further)[0] == 200
        crowd = [socket.create_connection((client.base_url.host, client.base_url.port or 0)) for _ in range(20)]
        assert is_closed(idle)
        engine.gate.set()
        assert reply_of(served)[0] == 200
        assert client.get("/health/live").status_code == 200
        for each in crowd:
            each.close()


def test_caller_that_never_takes_its_reply_is_left(service: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    left, lose = threading.Event(), connections.Connection.connection_lost

    def lost(each: connections.Connection, reason: Exception | None) -> None:
        lose(each, reason)
        if each.client == address:
            left.set()

    monkeypatch.setattr(connections.Connection, "connection_lost", lost)
    monkeypatch.setattr(connections, "REPLY_SECONDS", 1.0)
    with serving(assemble(service.settings, service.predictor.bundle)) as client, connection(client) as deaf:
        address = deaf.getsockname()
        views = [("file", (f"{seed}.png", png(draw_phantom(seed, height=1024, width=1024)))) for seed in range(14)]
        request = client.build_request("POST", "/analyze", files=views)
        content = request.read()
        head = f"Content-Type: {request.headers['content-type']}\r\nContent-Length: {len(content)}\r\n"
        deaf.sendall(b"POST /analyze HTTP/1.1\r\nHost: x\r\n" + head.encode() + b"\r\n" + content)
        assert left.wait(HUNG_SECONDS)
        assert client.get("/health/live").status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/health", "/info", "/metrics", "/docs", "/"])
def test_head_of_what_can_be_read_is_200_without_a_body(client: httpx.Client, path: str) -> None:
    reply = client.head(path)
    assert (reply.status_code, reply.content) == (200, b"")


def test_health_alone_means_live(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "live"}


def test_slash_at_the_end_is_answered_and_leads_to_no_other_host(client: httpx.Client) -> None:
    for path in ("/classify/", "/classify", "/retrieve/?k=1"):
        reply = client.post(path, files={"file": ("a.png", PHANTOM)}, headers={"Host": "evil.example"})
        assert (reply.status_code, reply.headers.get("location")) == (200, None)
    assert client.get("/health/live/").status_code == 200


def test_every_reply_is_kept_by_no_cache_and_not_guessed_at(client: httpx.Client) -> None:
    replies = [
        client.post("/classify", files={"file": ("a.png", PHANTOM)}),
        client.post("/cam", files={"file": ("a.png", PHANTOM)}),
        client.post("/classify", files={"file": ("a.png", b"no image")}),
        *(client.get(path) for path in ("/", "/docs", "/nothing", "/classify", "/metrics", "/health/live")),
    ]
    for reply in replies:
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
