"""Reads the header of a JPEG image, in a file or in DICOM, by walking over its segments.

JPEG is specified in ISO/IEC 10918-1 (ITU-T T.81), JPEG-LS in ISO/IEC 14495-1 (ITU-T T.87).
"""

import re
import struct
from dataclasses import dataclass

START_OF_SCAN, END_OF_IMAGE, APP1 = 0xDA, 0xD9, 0xE1
"""Second bytes of markers; the first is always 0xFF."""
MARKERS_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
EXIF = b"Exif\0\0"
JPEG_LS = "JPEG-LS"
PROCESSES = {
    0xC0: "baseline",
    0xC1: "extended sequential",
    0xC2: "progressive",
    0xC3: "lossless",
    0xC5: "differential sequential",
    0xC6: "differential progressive",
    0xC7: "differential lossless",
    0xC9: "arithmetic sequential",
    0xCA: "arithmetic progressive",
    0xCB: "arithmetic lossless",
    0xCD: "arithmetic differential sequential",
    0xCE: "arithmetic differential progressive",
    0xCF: "arithmetic differential lossless",
    0xF7: JPEG_LS,
}
"""The coding process, by the second byte of the frame's marker."""
FRAME_HEADER = struct.Struct(">BHHB")
"""Fields of a frame header: precision, height, width and number of components."""
MAX_SEGMENTS = 10_000
"""Limit on the segments of a file; photographs with large metadata have a few hundred."""
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker that ends a scan, which is neither a stuffed byte nor a restart marker."""
JPEG_LS_MARKER = re.compile(rb"\xff[\x80-\xfe]")
"""The same for JPEG-LS, which stuffs bits instead of bytes."""


@dataclass(frozen=True)
class JpegHeader:
    """The header of a JPEG image, from its segments.

    Attributes:
        process: one of `PROCESSES`.
        precision: bits per sample.
        components: samples per pixel.
        scans: number of passes over the image.
        exif: the first EXIF profile; None if there is none.
        is_complete: whether the marker for the end of the image is present; bytes after it are ignored.
    """

    process: str
    precision: int
    width: int
    height: int
    components: int
    scans: int
    exif: bytes | None
    is_complete: bool


def read_header(data: bytes) -> JpegHeader | None:
    """Walk a JPEG image's segments for its header; None without a frame or beyond `MAX_SEGMENTS` segments."""
    frame: tuple[int, bytes] | None = None
    exif = None
    scans = 0
    position = 2
    is_complete = False
    for _ in range(MAX_SEGMENTS):
        if (found := MARKER.search(data, position)) is None:
            break
        marker = data[found.end() - 1]
        position = found.end()
        if marker == END_OF_IMAGE:
            is_complete = True
            break
        if marker in MARKERS_WITHOUT_LENGTH:
            continue
        length = int.from_bytes(data[position : position + 2])
        segment = data[position + 2 : position + length]
        position = position + max(2, length)
        if marker in PROCESSES and frame is None:
            frame = marker, segment
        elif marker == APP1 and exif is None and segment.startswith(EXIF):
            exif = segment
        elif marker == START_OF_SCAN:
            scans += 1
            position = _find_end_of_scan(data, position, frame)
    else:
        return None
    if frame is None or len(frame[1]) < FRAME_HEADER.size:
        return None
    precision, height, width, components = FRAME_HEADER.unpack_from(frame[1])
    return JpegHeader(PROCESSES[frame[0]], precision, width, height, components, scans, exif, is_complete)


def _find_end_of_scan(data: bytes, position: int, frame: tuple[int, bytes] | None) -> int:
    """Return the position of the next marker, or the end of the data."""
    is_ls = frame is not None and PROCESSES[frame[0]] == JPEG_LS
    found = (JPEG_LS_MARKER if is_ls else MARKER).search(data, position)
    return found.start() if found else len(data)
