"""Streaming parser of multipart bodies: forms (RFC 7578) and multipart/related (RFC 2387).

It yields each part as soon as it is complete, so that only one part is in memory at a time.
"""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import MalformedRequestError, PayloadTooLargeError, UnsupportedContentTypeError
from app.settings import MEBIBYTE

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

RELATED = "multipart/related"
OVERHEAD_BYTES = 64 * 1024
"""Allowance for the headers and boundaries of one part, in bytes."""


@dataclass(frozen=True)
class Part:
    """A part of a body; the names of its headers are in lower case."""

    headers: dict[str, str]
    data: bytes


async def iterate_related_parts(request: Request, part_type: str, max_part_mib: int) -> AsyncIterator[bytes]:
    """Yield the bodies of the parts of a multipart/related request.

    Args:
        part_type: the media type that all parts have to be of, such as application/dicom.

    Raises:
        UnsupportedContentTypeError: it is not multipart/related of such parts.
        MalformedRequestError: the body is not multipart, or is cut off.
        PayloadTooLargeError: a part has more bytes than the limit; the rest is not read.
    """
    media, options = parse_options_header(request.headers.get("content-type", ""))
    if media != RELATED.encode() or options.get(b"type", part_type.encode()).lower() != part_type.encode():
        raise UnsupportedContentTypeError(f'Send {RELATED}; type="{part_type}"; boundary=… with a file in each part.')
    async for part in iterate_parts(request, max_part_mib):
        yield part.data


async def iterate_parts(request: Request, max_part_mib: int) -> AsyncIterator[Part]:
    """Yield the parts of any multipart request up to its last boundary.

    Raises:
        MalformedRequestError: the body is not multipart, or is cut off.
        PayloadTooLargeError: a part has more bytes than the limit; the rest is not read.
    """
    _, options = parse_options_header(request.headers.get("content-type", ""))
    if not options.get(b"boundary"):
        raise MalformedRequestError("The Content-Type of this multipart body names no boundary.")
    reader, unfinished = _PartCollector(max_part_mib), 0
    try:
        parser = MultipartParser(options[b"boundary"], reader.callbacks())
        async for chunk in request.stream():
            parser.write(chunk)
            unfinished += len(chunk)
            while reader.whole:
                unfinished = 0
                yield reader.whole.popleft()
            if reader.ended:
                return
            if unfinished > max_part_mib * MEBIBYTE + OVERHEAD_BYTES + len(chunk):
                raise _part_too_large(max_part_mib)
    except FormParserError as error:
        raise MalformedRequestError(
            "The body is no multipart with the boundary that its Content-Type names."
        ) from error
    raise MalformedRequestError("The body ends before its last boundary; send all of it.")


def _part_too_large(max_part_mib: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"A part is larger than {max_part_mib} MiB; send smaller files.")


@dataclass
class _PartCollector:
    """Collects the parser's callbacks into complete parts."""

    max_part_mib: int
    whole: deque[Part] = field(default_factory=deque)
    ended: bool = False
    _name: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _headers: dict[str, str] = field(default_factory=dict)
    _data: bytearray = field(default_factory=bytearray)

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": self._add,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._headers, self._data = {}, bytearray()

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name.clear()
        self._value.clear()

    def _add(self, data: bytes, start: int, end: int) -> None:
        if len(self._data) + end - start > self.max_part_mib * MEBIBYTE:
            raise _part_too_large(self.max_part_mib)
        self._data += data[start:end]

    def _end_part(self) -> None:
        self.whole.append(Part(self._headers, bytes(self._data)))
        self._data = bytearray()

    def _end(self) -> None:
        self.ended = True
