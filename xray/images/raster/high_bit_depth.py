"""Decodes 16-bit PNG, 12-bit JPEG, lossless JPEG and JPEG-LS to 8-bit gray.

The decoders come from imagecodecs. Some are rarely maintained, so a service calls them in a child process.
"""

from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from xray.images.levels import significant_levels

MIN_CHROMA = 40
"""Gray levels; a pixel whose brightest and darkest channels differ by more is colored. Tinted films differ by less."""
THUMBNAIL_SIDE = 64
"""Side in pixels of the thumbnail on which colored pixels are counted."""
LUMINANCE_WEIGHTS = (19595, 38470, 7471)
"""Weights of red, green and blue in ITU-R BT.601 luma, in units of 1/65,536; Pillow uses the same."""

PixelArray = npt.NDArray[np.uint8]


def decode_high_bit_png(data: bytes) -> tuple[PixelArray, float]:
    """Decode a 16-bit PNG to gray (H, W), with transparent pixels black, and the share of colored pixels."""
    return _reduce_depth(imagecodecs.png_decode(data))


def decode_high_bit_jpeg(data: bytes, is_ls: bool) -> tuple[PixelArray, float]:
    """Decode a complete 12-bit JPEG, lossless JPEG or JPEG-LS to gray pixels (H, W) and the share of colored pixels.

    The decoders fill missing parts of a truncated file without an error, so check for the end of the image first.
    """
    return _reduce_depth(imagecodecs.jpegls_decode(data) if is_ls else imagecodecs.jpeg_decode(data))


def measure_color_share(thumbnail_HW3: PixelArray) -> float:
    """Return the share of colored pixels in the 8-bit thumbnail of an image, of high bit depth or not.

    A pixel is colored if its channels differ by more than `MIN_CHROMA`.
    """
    channels_HW3 = thumbnail_HW3.astype(np.int16)
    return float((channels_HW3.max(2) - channels_HW3.min(2) > MIN_CHROMA).mean())


def _reduce_depth(samples: npt.NDArray[Any]) -> tuple[PixelArray, float]:
    """Reduce samples (H, W) or (H, W, channels) to 8-bit gray (H, W), and measure the share of colored pixels."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    samples_HWC = samples.reshape(*samples.shape[:2], channels)
    color_channels = 3 if channels >= 3 else 1
    gray_HW = _compute_luminance(samples_HWC) if color_channels == 3 else samples_HWC[..., 0].astype(np.uint32)
    if channels > color_channels:
        gray_HW = gray_HW * samples_HWC[..., -1] // np.iinfo(samples.dtype).max
    levels = significant_levels(gray_HW)
    rows, columns = (np.linspace(0, side - 1, THUMBNAIL_SIDE).astype(int) for side in gray_HW.shape)
    thumbnail = levels(samples_HWC[rows[:, np.newaxis], columns, :color_channels])
    return levels(gray_HW), measure_color_share(thumbnail)


def _compute_luminance(samples_HWC: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    sum_HW = np.full(samples_HWC.shape[:2], 1 << 15, np.uint32)
    for channel, weight in enumerate(LUMINANCE_WEIGHTS):
        sum_HW += samples_HWC[..., channel].astype(np.uint32) * np.uint32(weight)
    return np.asarray(sum_HW >> 16)
