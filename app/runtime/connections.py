"""One connection of the HTTP server, with the limits that uvicorn does not set.

h11 parses: its heads are bounded, and it ignores an upgrade to HTTP/2 where httptools drops the body. It costs 0.1 ms a
request more than httptools and 0.2 ms with a body of 1 MB, beside a forward pass of 80 ms.
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
"""Largest head of a request: its first line and its headers."""
HEADER_TIMEOUT_SECONDS = 10.0
"""Time in which a head must be complete, from the connection's begin or the reply before it."""
REPLY_SECONDS = 30.0
"""Time in which a caller must take each MiB of its reply."""
CHECK_INTERVAL_SECONDS = 0.5
"""Time between two looks at a connection. Looks are counted, not seconds: a process that was paused closes nobody."""
MAX_CONNECTIONS = 1000
"""Connections at once, or half of the files that the process may open where that is less."""

Phase = Literal["work", "reply", "head"]
PHASES: tuple[Phase, ...] = get_args(Phase)
"""By how little is lost when a connection ends in it."""


class Connection(H11Protocol):
    """HTTP/1.1 for callers who neither dawdle nor send without end; others would hold a connection for ever."""

    _check_timer: asyncio.TimerHandle | None = None
    _unchanged_checks = 0
    _idle_since = 0.0
    _last_state: tuple[object, Phase, int] = (None, "head", 0)

    @property
    def phase(self) -> Phase:
        """What the connection waits for: a request's head, the service's work, or the caller to take the reply."""
        if self.cycle is not None and not self.cycle.response_complete:
            return "reply" if self.cycle.response_started else "work"
        return "reply" if self.transport.get_write_buffer_size() else "head"

    @property
    def is_closing(self) -> bool:
        return self.transport.is_closing()

    @property
    def expects_request(self) -> bool:
        """Whether a request has to come: the first of the connection, or one that has begun."""
        return self.phase == "head" and (self.cycle is None or bool(self.conn.trailing_data[0]))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        self._check_timer = self.loop.call_later(CHECK_INTERVAL_SECONDS, self._check)
        open_ones = [each for each in self.connections if isinstance(each, Connection) and not each.is_closing]
        if len(open_ones) > max_connections():
            # The one that has asked nothing for the longest time. This one has asked nothing, so none that is served.
            max(open_ones, key=lambda each: (PHASES.index(each.phase), -each._idle_since)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._check_timer is not None:
            self._check_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # h11 looks at the size of what is incomplete, so a head that comes whole is handed to it up to the limit.
        while data and not self.transport.is_closing():
            room = len(data)
            if self.conn.their_state is h11.IDLE:
                room = max(1, MAX_HEADER_BYTES + 1 - len(self.conn.trailing_data[0]))
            piece, data = data[:room], data[room:]
            super().data_received(piece)

    def on_response_complete(self) -> None:
        if self.conn.their_state is h11.SEND_BODY:
            self.transport.close()  # the rest of the body was more than is read for a caller's sake
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with a problem, as everything else is answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        status, detail = HTTPStatus.BAD_REQUEST, "This is no HTTP/1.1 request; the service reads no other."
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
        # An offer that may be ignored (RFC 9110, 7.8), as Java's HttpClient makes it with every request.
        return False

    def _check(self) -> None:
        state = (self.cycle, self.phase, self.transport.get_write_buffer_size() >> 20)
        self._unchanged_checks = self._unchanged_checks + 1 if state == self._last_state else 0
        self._last_state = state
        limits = {
            "head": HEADER_TIMEOUT_SECONDS,
            "work": None,
            "reply": REPLY_SECONDS,
        }  # the service bounds its own work
        limit = limits[self.phase]
        if limit is not None and self._unchanged_checks * CHECK_INTERVAL_SECONDS >= limit:
            self.transport.abort()
        else:
            self._check_timer = self.loop.call_later(CHECK_INTERVAL_SECONDS, self._check)


def server_config(app: ASGIApp, **options: Any) -> uvicorn.Config:
    """The configuration of a server whose connections are these."""
    return uvicorn.Config(
        app, http=Connection, ws="none", h11_max_incomplete_event_size=MAX_HEADER_BYTES, access_log=False, **options
    )


def max_connections() -> int:
    """Connections that are held at once."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MAX_CONNECTIONS, files // 2)


def raise_file_limit() -> None:
    """Let the process open as many files as it may, so that many connections leave room for the rest."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
