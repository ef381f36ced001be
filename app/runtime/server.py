"""The process that serves the application. Graceful shutdown: every accepted connection gets its response."""

import asyncio
import logging
import math
import signal
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from app.runtime.connections import REPLY_SECONDS, Connection, raise_file_limit, server_config
from app.runtime.health import ReplicaHealth
from app.settings import Settings

logger = logging.getLogger(__name__)

KEEPALIVE_GRACE_SECONDS = 0.5
"""Time for another request on a used connection at shutdown, in seconds; a first request keeps its usual timeout."""
POLL_SECONDS = 0.05
"""Interval between two checks for pending requests, in seconds."""


class Server(uvicorn.Server):
    """Server that drains on SIGTERM: reports not ready, closes each connection after its reply, and stops listening."""

    def __init__(self, app: FastAPI, settings: Settings, health: ReplicaHealth) -> None:
        # No access log: query strings can name patients, and /metrics counts the requests.
        longest = math.ceil(settings.deadline_seconds + REPLY_SECONDS)
        address = {"host": settings.host, "port": settings.port}
        super().__init__(server_config(app, **address, timeout_graceful_shutdown=longest, log_config=None))
        self._vitals, self._drain_seconds = health, settings.drain_seconds
        self._listen_until = float("inf")

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal stops the server; exit with status 3 if the port cannot be opened."""
        raise_file_limit()
        try:
            listening = self.config.bind_socket()
        except SystemExit:
            logger.error("%s:%d cannot be opened; set OSTEON_PORT to another port.", self.config.host, self.config.port)
            raise
        listening.set_inheritable(False)
        # The kernel queues clients that connect just before the end; this second handle keeps the queue open.
        self._backlog_socket = listening.dup()
        super().run(sockets=[listening])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start to drain the server on the first SIGTERM; exit on any other signal."""
        super().handle_exit(sig, frame)
        if sig == signal.SIGTERM and not self._vitals.draining:
            self._vitals.draining = True
            self.should_exit, self._listen_until = False, time.monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Return whether the server has to stop listening; uvicorn calls this regularly."""
        self.should_exit = self.should_exit or time.monotonic() >= self._listen_until
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down the server: accept queued connections, wait for their requests, stop once all replies are sent."""
        self._vitals.draining = True
        for server in self.servers:
            server.close()
        await self._accept_backlog()
        if not self.force_exit:
            await asyncio.sleep(KEEPALIVE_GRACE_SECONDS)
        while not self.force_exit and self._has_pending_request():
            await asyncio.sleep(POLL_SECONDS)
        await super().shutdown(sockets)

    def _has_pending_request(self) -> bool:
        connections = self.server_state.connections
        return any(isinstance(each, Connection) and each.expects_request for each in connections)

    async def _accept_backlog(self) -> None:
        loop = asyncio.get_running_loop()
        self._backlog_socket.setblocking(False)
        with self._backlog_socket:
            while True:
                try:
                    connection, _ = self._backlog_socket.accept()
                except BlockingIOError:
                    return
                await loop.connect_accepted_socket(self._connection, connection)

    def _connection(self) -> asyncio.Protocol:
        return Connection(self.config, self.server_state, self.lifespan.state)
