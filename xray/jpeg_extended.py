"""A plugin for pydicom's decoders: JPEG Extended of 12 bits, which none of its own can decode.

pydicom asks a plugin for `is_available`, `DECODER_DEPENDENCIES` and a function that decodes a frame.
"""

import imagecodecs
import numpy as np
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import JPEGExtended12Bit

DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("imagecodecs",)}


def is_available(uid: str) -> bool:
    return uid in DECODER_DEPENDENCIES


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """The samples of one gray frame, in the width that the header allocates."""
    pixels = imagecodecs.jpeg_decode(source)
    width = np.uint8 if runner.bits_allocated == 8 else np.uint16
    return np.ascontiguousarray(pixels, dtype=width).tobytes()
