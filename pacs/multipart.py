"""Multipart bodies (RFC 2046): an incremental parser for requests and responses, and an encoder for DICOM files."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

from python_multipart.multipart import MultipartParser

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

DICOM = "application/dicom"
RELATED = "multipart/related"


@dataclass(frozen=True)
class Part:
    """A part of a multipart body. Header names are in lower case."""

    headers: dict[str, str]
    data: bytes


class PartTooLargeError(ValueError):
    """A part of a multipart body has more bytes than the limit of its parser."""


@dataclass
class PartParser:
    """Splits a multipart body into its parts as its chunks arrive, with only the part in progress in memory.

    Attributes:
        ended: whether the last boundary was read.
    """

    boundary: bytes
    max_part_bytes: int
    ended: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._complete: deque[Part] = deque()
        self._headers: dict[str, str] = {}
        self._name, self._value, self._data = bytearray(), bytearray(), bytearray()
        self._parser = MultipartParser(self.boundary, self._callbacks())

    def feed(self, chunk: bytes) -> list[Part]:
        """Parse the next chunk of the multipart body and return the parts that it completes.

        Raises:
            PartTooLargeError: a part is over the limit.
            python_multipart.exceptions.FormParserError: the body does not have this boundary.
        """
        self._parser.write(chunk)
        complete = list(self._complete)
        self._complete.clear()
        return complete

    def _callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": self._extend_part,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._headers = {}
        self._data = bytearray()

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name.clear()
        self._value.clear()

    def _extend_part(self, data: bytes, start: int, end: int) -> None:
        if len(self._data) + end - start > self.max_part_bytes:
            raise PartTooLargeError
        self._data += memoryview(data)[start:end]

    def _end_part(self) -> None:
        self._complete.append(Part(self._headers, bytes(self._data)))
        self._data = bytearray()

    def _end(self) -> None:
        self.ended = True


def encode_files(files: Iterable[bytes]) -> tuple[str, bytes]:
    """Return the content type and the body of a multipart message with these DICOM files (PS3.18 8.7.1)."""
    boundary = uuid4().hex
    header = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
    pieces = [piece for file in files for piece in (header, file, b"\r\n")]
    body = b"".join([*pieces, f"--{boundary}--\r\n".encode()])
    return f'{RELATED}; type="{DICOM}"; boundary={boundary}', body
