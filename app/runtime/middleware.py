"""What applies to every request before any route sees it: its path, its method, and the rest of its body."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAIN_TIMEOUT_SECONDS = 10.0
"""Time in which the rest of a body is read once its request is answered."""
MAX_DRAIN_BYTES = 256 * 1024 * 1024
"""How much of it is read."""


class NormalizePath:
    """A path with a slash at its end means the one without, and HEAD asks what GET does; the server drops the body.

    A redirect would lead to whatever Host the caller named, and lose the body.
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
    """Answer at once and read on: a caller that sends all of its body before it looks sees the reply.

    A connection that is closed while bytes come in is reset, and the reply is lost with it.
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
                # The body was not asked for; whether it comes all the same, nobody can tell.
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            if message["type"] == "http.response.body" and not message.get("more_body") and not unasked:
                await send({**message, "more_body": True})
                await request.drain()
                message = {"type": "http.response.body"}
            await send(message)

        await self.app(scope, request.receive, finish)


class _BodyReceiver:
    """The messages of a request, and whether more of its body is to come."""

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
