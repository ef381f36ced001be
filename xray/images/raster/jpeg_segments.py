"""Walk the segments of a JPEG file, or of JPEG within DICOM: its process, how many scans it has, and its orientation.

JPEG is specified in ISO/IEC 10918-1 (ITU-T T.81), JPEG-LS in ISO/IEC 14495-1 (ITU-T T.87).
"""

import re
import struct
from dataclasses import dataclass

START_OF_SCAN, END_OF_IMAGE, APP1 = 0xDA, 0xD9, 0xE1
WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
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
"""By the second byte of the frame's marker."""
FRAME = struct.Struct(">BHHB")
"""Precision, height, width and components."""
MAX_SEGMENTS = 10_000
"""Of a file; photographs with much beside their picture have some hundreds."""
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""What ends a scan: no stuffed byte and no restart."""
MARKER_OF_LS = re.compile(rb"\xff[\x80-\xfe]")


@dataclass(frozen=True)
class JpegHeader:
    """What a JPEG file says of its image.

    Attributes:
        process: one of `PROCESSES`.
        precision: bits of a sample.
        components: samples of a pixel.
        scans: passes over the image.
        exif: the first EXIF profile, if it has one.
        is_whole: whether the image ends with its marker; what comes behind is not of the image.
    """

    process: str
    precision: int
    width: int
    height: int
    components: int
    scans: int
    exif: bytes | None
    is_whole: bool


def read_header(data: bytes) -> JpegHeader | None:
    """None where the segments lead to no frame, or are too many."""
    frame: tuple[int, bytes] | None = None
    exif, scans, place, is_whole = None, 0, 2, False
    for _ in range(MAX_SEGMENTS):
        if (found := MARKER.search(data, place)) is None:
            break
        marker, place = data[found.end() - 1], found.end()
        if marker == END_OF_IMAGE:
            is_whole = True
            break
        if marker in WITHOUT_LENGTH:
            continue
        length = int.from_bytes(data[place : place + 2])
        segment, place = data[place + 2 : place + length], place + max(2, length)
        if marker in PROCESSES and frame is None:
            frame = marker, segment
        elif marker == APP1 and exif is None and segment.startswith(EXIF):
            exif = segment
        elif marker == START_OF_SCAN:
            scans += 1
            place = _end_of_scan(data, place, frame)
    else:
        return None
    if frame is None or len(frame[1]) < FRAME.size:
        return None
    precision, height, width, components = FRAME.unpack_from(frame[1])
    return JpegHeader(PROCESSES[frame[0]], precision, width, height, components, scans, exif, is_whole)


def _end_of_scan(data: bytes, place: int, frame: tuple[int, bytes] | None) -> int:
    """Where the next marker is, or the end of the file."""
    is_ls = frame is not None and PROCESSES[frame[0]] == JPEG_LS
    found = (MARKER_OF_LS if is_ls else MARKER).search(data, place)
    return found.start() if found else len(data)
