"""`python -m app.decode_process MAX_PIXELS`: image bytes on stdin in, a header line and raw pixels on stdout out.

What a decoder does to this process, it does to nobody else: memory is bounded, and whoever started it can end it.
"""

import json
import os
import resource
import sys
from collections.abc import Mapping

BASE_BYTES = 1 << 29
"""Address space of Python and its libraries."""
BYTES_A_PIXEL = 32
"""Of what Pillow and NumPy hold at once for the costliest kind of image: 16-bit colour with transparency."""
NICENESS = 10
"""Below the engine, which callers with ordinary images wait for."""


def main() -> None:
    max_pixels = int(sys.argv[1])
    os.nice(NICENESS)
    limit = BASE_BYTES + BYTES_A_PIXEL * max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    from xray.errors import InputError, UnreadableImageError
    from xray.image import decode_radiograph

    try:
        radiograph = decode_radiograph(sys.stdin.buffer.read(), max_pixels)
    except InputError as error:
        _write({"error": type(error).__name__, "detail": str(error)})
    except MemoryError:
        _write({"error": UnreadableImageError.__name__, "detail": "The image needs too much memory to decode."})
    else:
        facts = {"inverted": radiograph.inverted, "coloured": radiograph.coloured}
        _write({"shape": radiograph.pixels.shape, "facts": facts}, radiograph.pixels.tobytes())


def _write(header: Mapping[str, object], pixels: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + pixels)


if __name__ == "__main__":
    main()
