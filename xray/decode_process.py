"""`python -m xray.decode_process MAX_PIXELS`: files on stdin in, a header line and raw pixels for each on stdout out.

An empty line says that it is ready for a file. One comes as a byte that says what is asked of it, its length in 8,
then its bytes; the process ends with its input, or after a file whose memory it cannot give back.
What a decoder does to this process, it does to nobody else: memory is bounded, and whoever started it can end it.
"""

import json
import logging
import os
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

BASE_BYTES = 1 << 30
"""Address space of Python and its libraries, those of DICOM's codecs included."""
BYTES_A_PIXEL = 32
"""Of what Pillow and NumPy hold at once for the costliest kind of image: 16-bit colour with transparency."""
SWOLLEN_BYTES = 300 << 20
"""Resident after a file, beyond which what a decoder kept of it goes with the process; a fresh one takes 100 MB."""
NICENESS = 10
"""Below the engine, which callers with ordinary images wait for."""
DECODE, IDENTIFY = b"D", b"I"
LENGTH_BYTES = 8
READY = b"\n"


def main() -> None:
    max_pixels = int(sys.argv[1])
    os.nice(NICENESS)
    limit = BASE_BYTES + BYTES_A_PIXEL * max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    logging.disable()  # what a decoder has to say of a file may repeat a patient's name
    # What decoders print is nobody's to read either.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    _import()
    while _is_ready() and (asked := sys.stdin.buffer.read(1)):
        length = int.from_bytes(sys.stdin.buffer.read(LENGTH_BYTES))
        _answer(asked, sys.stdin.buffer.read(length), max_pixels)


def _import() -> None:
    """What decoding needs, below the limit of memory and before any file's time counts."""
    import xray.dicom
    import xray.reading  # noqa: F401


def _is_ready() -> bool:
    """Say so, unless the last file's decoder kept too much."""
    resident_pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    if resident_pages * resource.getpagesize() > SWOLLEN_BYTES:
        return False
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    return True


def _answer(asked: bytes, data: bytes, max_pixels: int) -> None:
    from xray.dicom import identify
    from xray.errors import InputError, UnreadableImageError
    from xray.reading import decode_radiograph

    try:
        if asked == IDENTIFY:
            _write({"facts": asdict(identify(data))})
            return
        radiograph = decode_radiograph(data, max_pixels)
    except InputError as error:
        _write({"error": type(error).__name__, "detail": str(error)})
    except MemoryError:
        _write({"error": UnreadableImageError.__name__, "detail": "The image needs too much memory to decode."})
    else:
        facts = asdict(radiograph)
        pixels = facts.pop("pixels")
        _write({"shape": pixels.shape, "facts": facts}, pixels.tobytes())


def _write(header: Mapping[str, object], pixels: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps({**header, "bytes": len(pixels)}).encode() + b"\n" + pixels)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
