"""Walk the chunks of a PNG file, to keep what its picture is made of and to leave the rest unread.

Text, profiles and animation may be larger than a decoder accepts, or damaged, and change no pixel. PNG is specified in
ISO/IEC 15948:2004 (W3C, second edition).
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from isal import isal_zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBB")
"""Width, height, bit depth and colour type."""
GRAY = 0
"""Colour type of one channel without a palette."""
ANCILLARY = 0x20
"""Bit of a chunk type's first letter that says that the picture can be shown without it."""
MAX_CHUNKS = 100_000
"""Of a file; a picture of 64 million pixels has some thousands."""
PICTURE_EXTRAS = (b"tRNS", b"eXIf")
EXIF_TEXT = b"Raw profile type exif\0"
XMP_TEXT = b"XML:com.adobe.xmp\0"
MAX_TEXT, MAX_EXIF = 16 << 20, 1 << 20
"""Bytes of a text chunk that are looked at, once inflated, and of one that Pillow takes."""
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


@dataclass(frozen=True)
class PngHeader:
    """What the first chunk announces; `colour_type` as in the standard."""

    width: int
    height: int
    bit_depth: int
    colour_type: int


@dataclass(frozen=True)
class PngPicture:
    """A PNG file without what changes no pixel.

    Attributes:
        orientation: as in EXIF, where XMP tells of it; None where it does not.
    """

    data: bytes
    orientation: int | None


def read_header(data: bytes) -> PngHeader | None:
    """None where the file ends before its first chunk does."""
    place = len(SIGNATURE) + 8
    return PngHeader(*HEADER.unpack_from(data, place)) if len(data) >= place + HEADER.size else None


def read_picture(data: bytes) -> PngPicture:
    """Read the chunks up to the end of the picture; what comes behind is left out.

    Raises:
        ValueError: a chunk of the picture itself has a wrong checksum, or is cut short, or there are too many chunks.
    """
    kept, orientation = [SIGNATURE], None
    for kind, chunk in _chunks(data):
        if not kind[0] & ANCILLARY or kind in PICTURE_EXTRAS:
            if not _is_sound(chunk):
                raise ValueError("a damaged chunk")
            kept.append(chunk)
        elif _holds_exif(kind, chunk):
            kept.append(chunk)
        elif kind == b"iTXt" and chunk.startswith(XMP_TEXT, 8):
            orientation = _orientation(chunk[8:-4]) or orientation
    return PngPicture(b"".join(kept), orientation)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and whole bytes of each chunk; the last one may be cut short."""
    place = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if place + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, data[place : place + 12 + length]
        if kind == b"IEND":
            return
        place += 12 + length
    raise ValueError("too many chunks")


def _holds_exif(kind: bytes, chunk: bytes) -> bool:
    """Whether a chunk is sound text that holds an EXIF profile, as ImageMagick writes it, small enough to be read."""
    if kind not in (b"tEXt", b"zTXt") or not chunk.startswith(EXIF_TEXT, 8):
        return False
    text = chunk[8 + len(EXIF_TEXT) : -4] if kind == b"tEXt" else _inflated(chunk[8 + len(EXIF_TEXT) + 1 : -4])
    return _is_sound(chunk) and len(text) < MAX_EXIF


def _is_sound(chunk: bytes) -> bool:
    """Whether it is as long as it says and has its checksum."""
    length = int.from_bytes(chunk[:4])
    return len(chunk) == length + 12 and isal_zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])


def _orientation(content: bytes) -> int | None:
    """What the XMP of an iTXt chunk says; None where it says nothing that can be read."""
    is_compressed = content[len(XMP_TEXT) : len(XMP_TEXT) + 1] == b"\1"
    fields = content[len(XMP_TEXT) + 2 :].split(b"\0", 2)  # language, translated keyword, text
    text = fields[-1]
    found = XMP_ORIENTATION.search(_inflated(text) if is_compressed else text[:MAX_TEXT])
    return int(found[1]) if found else None


def _inflated(text: bytes) -> bytes:
    """At most `MAX_TEXT` bytes of it; none where it cannot be inflated."""
    try:
        return zlib.decompressobj().decompress(text, MAX_TEXT)
    except zlib.error:
        return b""
