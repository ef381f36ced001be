"""ASGI middleware for every request: path normalization, HEAD requests, and draining of unread bodies."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAIN_TIMEOUT_SECONDS = 10.0
"""Time limit for reading the rest of a body after the reply, in seconds."""
MAX_DRAIN_BYTES = 256 * 1024 * 1024
"""Maximum number of bytes to read of that rest."""


class NormalizePath:
    """Middleware that strips slashes at the path's end and routes HEAD as GET; the server drops the reply's body.

    A redirect would lose the body, and it would point to any host that the caller names in the Host header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            plain = scope["path"].rstrip("/") or "/"
            method = "GET" if scope["method"] == "HEAD" and plain != "/" else scope["method"]
            scope = {**scope, "path": plain, "method": method}
        await self.app(scope, receive, send)


class DrainRequestBody:
    """Middleware that keeps reading a body after an early reply, so that a client that sends all of it gets the reply.

    Closing a connection while bytes arrive resets it, and the client loses the reply.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        request = _BodyReceiver(receive)
        waits = Headers(scope=scope).get("expect", "").lower() == "100-continue"

        async def finish(message: Message) -> None:
            unasked = waits and not request.begun
            if message["type"] == "http.response.start" and unasked:
                # The client may or may not send the body that was not requested, so the connection cannot be reused.
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            if message["type"] == "http.response.body" and not message.get("more_body") and not unasked:
                await send({**message, "more_body": True})
                await request.drain()
                message = {"type": "http.response.body"}
            await send(message)

        await self.app(scope, request.receive, finish)


class _BodyReceiver:
    """Passes on the messages of a request and tracks whether its body has ended."""

    def __init__(self, receive: Receive) -> None:
        self._source = receive
        self._more = True
        self.begun = False

    async def receive(self) -> Message:
        self.begun = True
        message = await self._source()
        self._more = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def drain(self) -> None:
        left = MAX_DRAIN_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_SECONDS):
                while self._more and left > 0:
                    left -= len((await self.receive()).get("body", b""))


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
