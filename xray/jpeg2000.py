"""A JPEG 2000 codestream in, the size that it announces out: a decoder makes room for that, whatever the tags say."""

import struct

START = b"\xff\x4f\xff\x51"
"""Of a codestream, and of its size (ISO/IEC 15444-1, A.4.1 and A.5.1)."""
SIZE = struct.Struct(">4x4I")
"""Behind the start: length and capabilities; width and height of the grid, then the image's left and top on it."""


def announced_shape(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns; None where no codestream begins."""
    place = stream.find(START) + len(START)
    if place < len(START) or len(stream) < place + SIZE.size:
        return None
    width, height, left, top = SIZE.unpack_from(stream, place)
    return height - top, width - left
