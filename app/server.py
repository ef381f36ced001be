"""An application in, the process that serves it out: told to stop, it loses no caller whose connection it took."""

import asyncio
import signal
import socket
import time
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.settings import Settings
from app.vitals import Vitals

HEAD_SECONDS = 10.0
"""Within which a request's head must be complete; the deadline of the request counts from there."""
LAST_HEADS_SECONDS = 0.5
"""For the next requests of connections that were answered before; who has yet to ask his first has `HEAD_SECONDS`."""
LOOK_SECONDS = 0.05
"""Between two looks at who has yet to ask."""


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 for those who send a request's head without dawdling; others would hold a connection for ever."""

    _head_timer: asyncio.TimerHandle | None = None

    @property
    def expects_head(self) -> bool:
        """Whether a request has to come: the first of the connection, or one that has begun."""
        return self._head_timer is not None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._have_head()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._have_head()
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _have_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Server(uvicorn.Server):
    """On SIGTERM it is not ready and closes each connection with its reply; after a pause it stops listening."""

    def __init__(self, app: FastAPI, settings: Settings, vitals: Vitals) -> None:
        # Query strings can name patients, so no access log; /metrics counts the requests. The log is set up by now.
        config = uvicorn.Config(
            app, host=settings.host, port=settings.port, http=Protocol, access_log=False, log_config=None
        )
        super().__init__(config)
        self._vitals, self._drain_seconds = vitals, settings.drain_seconds
        self._listen_until = float("inf")

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop; exits with status 3 where the port cannot be opened."""
        listening = self.config.bind_socket()
        listening.set_inheritable(False)
        # Whoever connected just before the end waits in the kernel; this second handle keeps him reachable.
        self._waiting_room = listening.dup()
        super().run(sockets=[listening])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if sig == signal.SIGTERM and not self._vitals.draining:
            self._vitals.draining = True
            self.should_exit, self._listen_until = False, time.monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        self.should_exit = self.should_exit or time.monotonic() >= self._listen_until
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take in those who have connected, hear what they ask, and end once all have their replies."""
        self._vitals.draining = True
        for server in self.servers:
            server.close()
        await self._take_waiting()
        if not self.force_exit:
            await asyncio.sleep(LAST_HEADS_SECONDS)
        while not self.force_exit and self._anybody_is_about_to_ask():
            await asyncio.sleep(LOOK_SECONDS)
        await super().shutdown(sockets)

    def _anybody_is_about_to_ask(self) -> bool:
        connections = self.server_state.connections
        return any(isinstance(each, Protocol) and each.expects_head for each in connections)

    async def _take_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiting_room.setblocking(False)
        with self._waiting_room:
            while True:
                try:
                    connection, _ = self._waiting_room.accept()
                except BlockingIOError:
                    return
                await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        return Protocol(self.config, self.server_state, self.lifespan.state)
