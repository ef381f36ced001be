"""Child process that decodes files: `python -m xray.images.decoding.decoder_worker MAX_PIXELS`.

It uses the protocol of `xray.sandbox.worker`. The header of the reply to `DECODE` has the shape and the other facts
of the `Radiograph`; its data are the raw pixels. The header of the reply to `IDENTIFY` has the `Identity`.
"""

import sys
from dataclasses import asdict

from xray.sandbox.worker import MemoryLimits, send_reply, serve

BASE_BYTES = 1 << 30
"""Address space in bytes for Python and its libraries, including the DICOM codecs."""
BYTES_PER_PIXEL = 32
"""Peak memory of Pillow and NumPy for the most expensive kind of image: 16-bit color with transparency."""
MAX_RESIDENT_BYTES = 300 << 20
"""Resident memory in bytes above which the process is replaced after a file; a fresh process has 100 MB."""
DECODE, IDENTIFY = b"D", b"I"
"""The kinds of requests."""


def main() -> None:
    """Run the decoder process: decode files on request until the parent process ends."""
    max_pixels = int(sys.argv[1])
    limits = MemoryLimits(BASE_BYTES + BYTES_PER_PIXEL * max_pixels, MAX_RESIDENT_BYTES)
    serve(import_decoders, lambda kind, data: handle_request(kind, data, max_pixels), limits)


def import_decoders() -> None:
    """Import the decoders into the child process before its first request."""
    import xray.images.decoding.decode  # noqa: F401


def handle_request(kind: bytes, data: bytes, max_pixels: int) -> None:
    """Decode or identify the file of one request in the child process, and send the reply."""
    from xray.errors import InputError, UnreadableImageError
    from xray.images.decoding.decode import decode_radiograph
    from xray.images.dicom.decode import identify

    try:
        if kind == IDENTIFY:
            send_reply({"facts": asdict(identify(data))})
            return
        radiograph = decode_radiograph(data, max_pixels)
    except InputError as error:
        send_reply({"error": type(error).__name__, "detail": str(error)})
    except MemoryError:
        send_reply({"error": UnreadableImageError.__name__, "detail": "The image needs too much memory to decode."})
    else:
        facts = asdict(radiograph)
        pixels = facts.pop("pixels")
        send_reply({"shape": pixels.shape, "facts": facts}, pixels.tobytes())


if __name__ == "__main__":
    main()
