"""Decode PNG of 16 bits, JPEG of 12 bits, lossless JPEG and JPEG-LS to 8-bit gray, by the levels that the image uses.

The decoders are imagecodecs', some of which are little maintained: a service calls this in a process apart.
"""

from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from xray.images.levels import significant_levels

CHROMA = 40
"""Gray levels between a pixel's brightest and darkest channel, above which it has a colour; a tinted film has less."""
SKETCH_SIDE = 64
"""Pixels of the copy on which colours are looked for."""
LUMINANCE_WEIGHTS = (19595, 38470, 7471)
"""Of red, green and blue in ITU-R 601 luma, as 65,536ths; the same as Pillow's."""

PixelArray = npt.NDArray[np.uint8]


def decode_deep_png(data: bytes) -> tuple[PixelArray, float]:
    """Gray pixels (H, W), transparent ones black, and the share of coloured ones."""
    return _reduced(imagecodecs.png_decode(data))


def decode_deep_jpeg(data: bytes, is_ls: bool) -> tuple[PixelArray, float]:
    """Gray pixels (H, W) and the share of coloured ones, of a whole file: what is missing is filled up in silence."""
    return _reduced(imagecodecs.jpegls_decode(data) if is_ls else imagecodecs.jpeg_decode(data))


def share_with_colour(sketch_HW3: PixelArray) -> float:
    """Share of pixels whose channels differ by more than `CHROMA`."""
    channels_HW3 = sketch_HW3.astype(np.int16)
    return float((channels_HW3.max(2) - channels_HW3.min(2) > CHROMA).mean())


def _reduced(samples: npt.NDArray[Any]) -> tuple[PixelArray, float]:
    """Samples (H, W) or (H, W, channels) of any depth as 8-bit gray, and the share of coloured pixels."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    samples_HWC = samples.reshape(*samples.shape[:2], channels)
    colours = 3 if channels >= 3 else 1
    gray_HW = _luminance(samples_HWC) if colours == 3 else samples_HWC[..., 0].astype(np.uint32)
    if channels > colours:
        gray_HW = gray_HW * samples_HWC[..., -1] // np.iinfo(samples.dtype).max
    levels = significant_levels(gray_HW)
    rows, columns = (np.linspace(0, side - 1, SKETCH_SIDE).astype(int) for side in gray_HW.shape)
    sketch = levels(samples_HWC[rows[:, np.newaxis], columns, :colours])
    return levels(gray_HW), share_with_colour(sketch)


def _luminance(samples_HWC: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    sum_HW = np.full(samples_HWC.shape[:2], 1 << 15, np.uint32)
    for channel, weight in enumerate(LUMINANCE_WEIGHTS):
        sum_HW += samples_HWC[..., channel].astype(np.uint32) * np.uint32(weight)
    return np.asarray(sum_HW >> 16)
