"""HTTP connections with the limits and timeouts that uvicorn does not have.

The parser is h11 because it limits the size of the headers and ignores an upgrade to HTTP/2, where httptools drops the
body. It takes 0.1 ms more than httptools per request, or 0.2 ms with a body of 1 MB; a forward pass takes 80 ms.
"""

import asyncio
import json
import resource
from http import HTTPStatus
from typing import Any, Literal, get_args

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.errors import PROBLEM_TYPE, SAFE_HEADERS, MalformedRequestError, problem_content

MAX_HEADER_BYTES = 32 * 1024
"""Size limit of a request line and its headers, in bytes."""
HEADER_TIMEOUT_SECONDS = 10.0
"""Time for a complete request head, in seconds, from the start of the connection or from the previous reply."""
REPLY_SECONDS = 30.0
"""Time in which a client has to read each MiB of its reply, in seconds."""
CHECK_INTERVAL_SECONDS = 0.5
"""Interval between two checks of a connection, in seconds. Timeouts count checks, so a pause closes no connection."""
MAX_CONNECTIONS = 1000
"""Limit on open connections; half of the limit on open files applies if that is lower."""

Phase = Literal["work", "reply", "head"]
PHASES: tuple[Phase, ...] = get_args(Phase)
"""The phases, ordered by the cost of closing a connection in them, most expensive first."""


class Connection(H11Protocol):
    """HTTP/1.1 connection that is closed when its client is too slow or sends too much."""

    _check_timer: asyncio.TimerHandle | None = None
    _unchanged_checks = 0
    _idle_since = 0.0
    _last_state: tuple[object, Phase, int] = (None, "head", 0)

    @property
    def phase(self) -> Phase:
        """What the connection waits for: the service's work, the client reading the reply, or a request head."""
        if self.cycle is not None and not self.cycle.response_complete:
            return "reply" if self.cycle.response_started else "work"
        return "reply" if self.transport.get_write_buffer_size() else "head"

    @property
    def is_closing(self) -> bool:
        """Whether the connection's transport is closed or about to close."""
        return self.transport.is_closing()

    @property
    def expects_request(self) -> bool:
        """Whether a request is due: the first one of the connection, or one that has started to arrive."""
        return self.phase == "head" and (self.cycle is None or bool(self.conn.trailing_data[0]))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start a connection's timeouts; at the limit on connections, close the one that has been idle for longest."""
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        self._check_timer = self.loop.call_later(CHECK_INTERVAL_SECONDS, self._check)
        open_ones = [each for each in self.connections if isinstance(each, Connection) and not each.is_closing]
        if len(open_ones) > max_connections():
            # Close the connection that has been idle for longest. The new one is idle too, so none in use is closed.
            max(open_ones, key=lambda each: (PHASES.index(each.phase), -each._idle_since)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the connection's timeouts."""
        if self._check_timer is not None:
            self._check_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass a connection's data to the parser within the limit on the size of a request head."""
        # h11 checks the size of incomplete heads only, so pass at most one byte more than the limit at once.
        while data and not self.transport.is_closing():
            room = len(data)
            if self.conn.their_state is h11.IDLE:
                room = max(1, MAX_HEADER_BYTES + 1 - len(self.conn.trailing_data[0]))
            piece, data = data[:room], data[room:]
            super().data_received(piece)

    def on_response_complete(self) -> None:
        """Prepare the connection for its next request; close it if the body of this one was not read."""
        if self.conn.their_state is h11.SEND_BODY:
            self.transport.close()  # more of the body is left than the service reads and drops
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer invalid HTTP with a problem document and close the connection."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        status, detail = (
            HTTPStatus.BAD_REQUEST,
            "This is not an HTTP/1.1 request, and the service supports no other protocol.",
        )
        if len(self.conn.trailing_data[0]) > MAX_HEADER_BYTES:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            detail = f"The request's head is larger than {MAX_HEADER_BYTES // 1024} KiB; send fewer or shorter headers."
        content = json.dumps(problem_content(status, MalformedRequestError.__name__, detail)).encode()
        headers = {**SAFE_HEADERS, "Content-Type": PROBLEM_TYPE, "Content-Length": str(len(content))}
        reply = h11.Response(status_code=status, headers=[*headers.items(), ("Connection", "close")])
        for event in (reply, h11.Data(data=content), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _should_upgrade(self) -> bool:
        # A server may ignore an offer to upgrade (RFC 9110, 7.8). Java's HttpClient sends one with every request.
        return False

    def _check(self) -> None:
        state = (self.cycle, self.phase, self.transport.get_write_buffer_size() >> 20)
        self._unchanged_checks = self._unchanged_checks + 1 if state == self._last_state else 0
        self._last_state = state
        limits = {
            "head": HEADER_TIMEOUT_SECONDS,
            "work": None,
            "reply": REPLY_SECONDS,
        }  # the service limits its own work
        limit = limits[self.phase]
        if limit is not None and self._unchanged_checks * CHECK_INTERVAL_SECONDS >= limit:
            self.transport.abort()
        else:
            self._check_timer = self.loop.call_later(CHECK_INTERVAL_SECONDS, self._check)


def server_config(app: ASGIApp, **options: Any) -> uvicorn.Config:
    """Build the uvicorn configuration that gives HTTP connections these limits and timeouts."""
    return uvicorn.Config(
        app, http=Connection, ws="none", h11_max_incomplete_event_size=MAX_HEADER_BYTES, access_log=False, **options
    )


def max_connections() -> int:
    """Return the limit on open HTTP connections."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MAX_CONNECTIONS, files // 2)


def raise_file_limit() -> None:
    """Raise the soft limit on open files to the hard limit, so that connections do not use up all file descriptors."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
