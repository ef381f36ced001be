"""Reads the header of a PNG file, and strips the chunks that do not change its pixels.

Text, profiles and animation may be damaged or larger than a decoder accepts. PNG is specified in ISO/IEC 15948:2004
(W3C, second edition).
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from isal import isal_zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBB")
"""Fields of the header: width, height, bit depth and color type."""
GRAY = 0
"""Color type of a single channel without a palette."""
ANCILLARY_BIT = 0x20
"""Bit in the first letter of a chunk type, which is set if the image can be decoded without the chunk."""
MAX_CHUNKS = 100_000
"""Limit on the chunks of a file; an image of 64 million pixels has a few thousand."""
KEPT_CHUNKS = (b"tRNS", b"eXIf")
"""Ancillary chunks to keep: transparency and orientation."""
EXIF_TEXT = b"Raw profile type exif\0"
XMP_TEXT = b"XML:com.adobe.xmp\0"
"""Start of the text chunks with EXIF and XMP."""
MAX_TEXT_BYTES = 16 << 20
"""Maximum number of bytes to inflate of a text chunk, 16 MiB."""
MAX_EXIF_BYTES = 1 << 20
"""Size limit for the text of an EXIF chunk, 1 MiB; Pillow does not accept larger ones."""
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


@dataclass(frozen=True)
class PngHeader:
    """The first chunk of a PNG file; `color_type` is a code of the standard."""

    width: int
    height: int
    bit_depth: int
    color_type: int


@dataclass(frozen=True)
class StrippedPng:
    """A PNG file without the chunks that do not change its pixels.

    Attributes:
        data: the file.
        orientation: EXIF code of the orientation if the file has it in XMP, otherwise None.
    """

    data: bytes
    orientation: int | None


def read_header(data: bytes) -> PngHeader | None:
    """Read the header of a PNG file; None if the file is too short."""
    position = len(SIGNATURE) + 8
    return PngHeader(*HEADER.unpack_from(data, position)) if len(data) >= position + HEADER.size else None


def strip_chunks(data: bytes) -> StrippedPng:
    """Keep only the chunks of a PNG file for its pixels and orientation, up to the end of the image.

    Raises:
        ValueError: a chunk that the image needs is truncated or has a wrong checksum, or there are more than
            `MAX_CHUNKS` chunks.
    """
    kept = [SIGNATURE]
    orientation = None
    for kind, chunk in _iterate_chunks(data):
        if not kind[0] & ANCILLARY_BIT or kind in KEPT_CHUNKS:
            if not _is_intact(chunk):
                raise ValueError("a damaged chunk")
            kept.append(chunk)
        elif _holds_exif(kind, chunk):
            kept.append(chunk)
        elif kind == b"iTXt" and chunk.startswith(XMP_TEXT, 8):
            orientation = _read_orientation(chunk[8:-4]) or orientation
    return StrippedPng(b"".join(kept), orientation)


def _iterate_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and all bytes of each chunk; the last may be truncated."""
    position = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position : position + 12 + length]
        if kind == b"IEND":
            return
        position += 12 + length
    raise ValueError("too many chunks")


def _holds_exif(kind: bytes, chunk: bytes) -> bool:
    """Return whether a chunk is an intact EXIF text, as written by ImageMagick, that is small enough for Pillow."""
    if kind not in (b"tEXt", b"zTXt") or not chunk.startswith(EXIF_TEXT, 8):
        return False
    text = chunk[8 + len(EXIF_TEXT) : -4] if kind == b"tEXt" else _inflate(chunk[8 + len(EXIF_TEXT) + 1 : -4])
    return _is_intact(chunk) and len(text) < MAX_EXIF_BYTES


def _is_intact(chunk: bytes) -> bool:
    """Return whether a chunk has the right length and checksum."""
    length = int.from_bytes(chunk[:4])
    return len(chunk) == length + 12 and isal_zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])


def _read_orientation(content: bytes) -> int | None:
    """Return the orientation in the XMP of an iTXt chunk; None if it is missing or unreadable."""
    is_compressed = content[len(XMP_TEXT) : len(XMP_TEXT) + 1] == b"\1"
    fields = content[len(XMP_TEXT) + 2 :].split(b"\0", 2)  # language, translated keyword, text
    text = fields[-1]
    found = XMP_ORIENTATION.search(_inflate(text) if is_compressed else text[:MAX_TEXT_BYTES])
    return int(found[1]) if found else None


def _inflate(text: bytes) -> bytes:
    """Inflate at most `MAX_TEXT_BYTES`; empty if the text cannot be inflated."""
    try:
        return zlib.decompressobj().decompress(text, MAX_TEXT_BYTES)
    except zlib.error:
        return b""
