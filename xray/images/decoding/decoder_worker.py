"""Child process that decodes files: `python -m xray.images.decoding.decoder_worker MAX_PIXELS`.

The protocol is that of `xray.sandbox.worker`. The answer for a decoded file holds its facts and its shape, followed by
the raw pixels.
"""

import sys
from dataclasses import asdict

from xray.sandbox.worker import MemoryLimits, serve, write

BASE_BYTES = 1 << 30
"""Address space of Python and its libraries, those of DICOM's codecs included."""
BYTES_A_PIXEL = 32
"""Of what Pillow and NumPy hold at once for the costliest kind of image: 16-bit colour with transparency."""
SWOLLEN_BYTES = 300 << 20
"""Resident after a file, beyond which what a decoder kept of it goes with the process; a fresh one takes 100 MB."""
DECODE, IDENTIFY = b"D", b"I"


def main() -> None:
    max_pixels = int(sys.argv[1])
    limits = MemoryLimits(BASE_BYTES + BYTES_A_PIXEL * max_pixels, SWOLLEN_BYTES)
    serve(_import, lambda asked, data: _answer(asked, data, max_pixels), limits)


def _import() -> None:
    pass


def _answer(asked: bytes, data: bytes, max_pixels: int) -> None:
    from xray.errors import InputError, UnreadableImageError
    from xray.images.decoding.decode import decode_radiograph
    from xray.images.dicom.decode import identify

    try:
        if asked == IDENTIFY:
            write({"facts": asdict(identify(data))})
            return
        radiograph = decode_radiograph(data, max_pixels)
    except InputError as error:
        write({"error": type(error).__name__, "detail": str(error)})
    except MemoryError:
        write({"error": UnreadableImageError.__name__, "detail": "The image needs too much memory to decode."})
    else:
        facts = asdict(radiograph)
        pixels = facts.pop("pixels")
        write({"shape": pixels.shape, "facts": facts}, pixels.tobytes())


if __name__ == "__main__":
    main()
