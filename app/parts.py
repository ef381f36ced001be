"""A multipart/related body in, its parts out, each as soon as it is whole: one part is in memory at a time.

Senders differ in what they quote and in how they begin (RFC 2387, RFC 2046), so parsing is left to the parser that also
reads the forms.
"""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import MalformedRequestError, PayloadTooLargeError, UnsupportedContentTypeError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

RELATED = "multipart/related"
MEBIBYTE = 1 << 20


async def related_parts(request: Request, part_type: str, max_part_mib: int) -> AsyncIterator[bytes]:
    """The bodies of the parts.

    Args:
        part_type: the media type that all parts have to be of, such as application/dicom.

    Raises:
        UnsupportedContentTypeError: it is not multipart/related of such parts.
        MalformedRequestError: no multipart, or cut off.
        PayloadTooLargeError: a part has more bytes than the limit; the rest is not read.
    """
    reader = _Reader(max_part_mib)
    parser = MultipartParser(_boundary(request, part_type), reader.callbacks())
    try:
        async for chunk in request.stream():
            parser.write(chunk)
            while reader.whole:
                yield reader.whole.popleft()
        parser.finalize()
    except FormParserError as error:
        raise MalformedRequestError(f"The body is no {RELATED} with the boundary that its type names.") from error
    if not reader.ended:
        raise MalformedRequestError("The body ends before its last boundary; send all of it.")


def _boundary(request: Request, part_type: str) -> bytes:
    media, options = parse_options_header(request.headers.get("content-type", ""))
    if media != RELATED.encode() or options.get(b"type", part_type.encode()).lower() != part_type.encode():
        raise UnsupportedContentTypeError(f'Send {RELATED}; type="{part_type}"; boundary=… with a file in each part.')
    if not options.get(b"boundary"):
        raise MalformedRequestError(f"The Content-Type {RELATED} names no boundary.")
    return options[b"boundary"]


@dataclass
class _Reader:
    """What the parser has told so far."""

    max_part_mib: int
    whole: deque[bytes] = field(default_factory=deque)
    ended: bool = False
    _part: bytearray = field(default_factory=bytearray)

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._part.clear,
            "on_part_data": self._add,
            "on_part_end": lambda: self.whole.append(bytes(self._part)),
            "on_end": self._end,
        }

    def _add(self, data: bytes, start: int, end: int) -> None:
        if len(self._part) + end - start > self.max_part_mib * MEBIBYTE:
            raise PayloadTooLargeError(f"A part is larger than {self.max_part_mib} MiB; send smaller files.")
        self._part += data[start:end]

    def _end(self) -> None:
        self.ended = True
