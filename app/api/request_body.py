"""Limits the body of a request: its size before and after decompression, and the time that it takes to arrive."""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Iterator

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from app.errors import DeadlineError, MalformedRequestError, PayloadTooLargeError, UnsupportedContentTypeError
from app.settings import Settings

CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
OTHER_CODINGS = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})
"""Registered content codings that an error message may repeat; any other value may contain private data."""
CHUNK_BYTES = 256 * 1024
"""Size limit of one decompressed chunk, in bytes."""
GZIP, ZLIB, RAW_DEFLATE = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS
MIN_BYTES_PER_SECOND = 64 * 1024
"""Minimum average rate of a long body, in bytes per second."""


def limit_body_size(request: Request, settings: Settings, total: bool = True) -> Request:
    """Return the same request with a body that is decompressed and raises PayloadTooLargeError over the limit.

    Args:
        total: whether to limit the whole body; if not, the reader has to limit what it keeps.

    Raises:
        UnsupportedContentTypeError: the content coding is not supported.
    """
    coding = _supported_coding(request)
    receive = _count_bytes(request.receive, settings) if total else request.receive
    if coding is not None:
        receive = _receive_from(_decompress(_chunks(receive), coding))
        receive = _count_bytes(receive, settings) if total else receive
    return Request(request.scope, receive)


def limit_body_pace(request: Request, seconds: float) -> Request:
    """Limit a request body's pace: return the request with a body that raises DeadlineError if it is too slow.

    Only the time spent waiting for the sender counts, not what the service does with the body between two reads.

    Args:
        seconds: waiting time allowed in addition to that at `MIN_BYTES_PER_SECOND`.
    """
    waited, received = 0.0, 0

    async def receive() -> Message:
        nonlocal waited, received
        started = time.monotonic()
        try:
            async with asyncio.timeout(seconds + received / MIN_BYTES_PER_SECOND - waited):
                message = await request.receive()
        except TimeoutError as error:
            raise DeadlineError(
                f"The body arrived slower than {MIN_BYTES_PER_SECOND // 1024} KiB per second; send it again without "
                "pauses."
            ) from error
        waited += time.monotonic() - started
        received += len(message.get("body", b""))
        return message

    return Request(request.scope, receive)


def require_body_size(size: int, settings: Settings) -> None:
    """Require that a request's body of `size` bytes is within the limit of the settings.

    Raises:
        PayloadTooLargeError: it is not.
    """
    if size > settings.max_upload_bytes:
        raise PayloadTooLargeError(
            f"The request is larger than {settings.max_upload_mib} MiB; send fewer or smaller files."
        )


def is_compressed(request: Request) -> bool:
    """Return whether a request's body is compressed, so that its decoded size differs from Content-Length."""
    return bool(_content_codings(request))


def _supported_coding(request: Request) -> str | None:
    codings = _content_codings(request)
    if not codings:
        return None
    if len(codings) == 1 and codings[0] in CODINGS:
        return codings[0]
    named = ", ".join(each for each in codings if each in OTHER_CODINGS)
    raise UnsupportedContentTypeError(
        f"This Content-Encoding{f' ({named})' if named else ''} is not supported; "
        "send the body uncompressed, or compressed once with gzip or deflate."
    )


def _content_codings(request: Request) -> list[str]:
    written = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    return [each.strip() for each in written if each.strip() not in ("", "identity")]


def _count_bytes(source: Receive, settings: Settings) -> Receive:
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await source()
        received += len(message.get("body", b""))
        require_body_size(received, settings)
        return message

    return receive


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        yield message.get("body", b"")


def _receive_from(pieces: AsyncIterator[bytes]) -> Receive:
    async def receive() -> Message:
        piece = await anext(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    return receive


async def _decompress(chunks: AsyncIterator[bytes], coding: str) -> AsyncIterator[bytes]:
    """Decompress a body into chunks of bounded size.

    Raises:
        MalformedRequestError: the body is not compressed with that coding, or is cut off.
    """
    inflater = _Inflater(coding)
    try:
        async for chunk in chunks:
            for piece in inflater.feed(chunk):
                yield piece
                await asyncio.sleep(0)  # let other requests run
    except zlib.error as error:
        raise MalformedRequestError(
            "The body is not compressed with the coding that its Content-Encoding names."
        ) from error
    if not inflater.ended:
        raise MalformedRequestError("The compressed body ends before it is complete; send all of it.")


class _Inflater:
    """Decompresses a stream: gzip with any number of members, and deflate with or without its zlib header."""

    def __init__(self, coding: str) -> None:
        self._supported_coding = coding
        self._stream: zlib._Decompress | None = None
        self._begun = b""
        self._members = 0

    @property
    def ended(self) -> bool:
        return self._stream is None and not self._begun and self._members > 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        data = self._begun + chunk
        self._begun = b""
        while data:
            if self._stream is None:
                if len(data) < 2:
                    self._begun = data
                    return
                self._stream = zlib.decompressobj(self._window(data))
            piece = self._stream.decompress(data, CHUNK_BYTES)
            data = self._stream.unconsumed_tail
            if self._stream.eof:
                data, self._stream, self._members = self._stream.unused_data, None, self._members + 1
            if piece:
                yield piece

    def _window(self, data: bytes) -> int:
        if self._supported_coding != "deflate":
            return GZIP
        if self._members:
            raise zlib.error("more follows the end")
        wrapped = data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0
        return ZLIB if wrapped else RAW_DEFLATE
