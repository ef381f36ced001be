"""Reduces gray of more than 8 bits to 8 bits, based on the levels that an image uses except for stray pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xray.images.margins import inside_margins

BITS = 8
"""Number of bits of the result."""
MAX_STRAY_SHARE = 0.0005
"""Share of the brightest pixels that is ignored when the significant bits are counted."""
MAX_LABEL_SHARE, MAX_LABEL_LEVELS = 0.05, 16
"""Bright pixels of up to this share and number of levels count as burned-in letters and frames, and are ignored."""
MIN_UNUSED_BITS = 2
"""Minimum number of unused bits to drop: keeping a single one costs little, and the image stays as it was exported."""
DARKEST_PERCENTILE = 0.5
"""Percentile of the pixels that counts as the darkest level, to ignore stray pixels."""

DeepArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Levels:
    """A mapping to 0 to 255 of the gray levels that an image of more than 8 bits uses.

    Attributes:
        lowest: the level that becomes 0, like all levels below it.
        dropped_bits: number of low bits that are dropped from the difference to `lowest`; the result is at most 255.
    """

    lowest: int
    dropped_bits: int

    def __call__(self, deep: DeepArray) -> npt.NDArray[np.uint8]:
        """Map gray levels of any shape."""
        above = np.maximum(deep, self.lowest) - self.lowest if self.lowest else deep
        return np.asarray(np.minimum(above >> self.dropped_bits, 255), np.uint8)


def significant_levels(deep_HW: DeepArray, shown_HW: npt.NDArray[np.bool_] | None = None) -> Levels:
    """Choose the levels that an image (H, W) of more than 8 bits uses, by the pixels inside its margins.

    The highest bit that more than stray pixels use is the first of the eight bits that are kept: 12 bits stored in 16
    lose 4. For an image that uses a narrow range far above 0, such as signed values with an offset, the darkest level
    becomes 0.

    Args:
        shown_HW: whether a pixel counts; False for padding.
    """
    inside_n = _content_pixels(deep_HW, shown_HW)
    lowest = int(np.percentile(inside_n, DARKEST_PERCENTILE, method="lower"))
    bits, bits_of_band = _count_used_bits(inside_n), _count_used_bits(np.maximum(inside_n, lowest) - lowest)
    if bits_of_band <= bits - MIN_UNUSED_BITS:
        return Levels(lowest, bits_of_band - BITS)
    return Levels(0, bits - BITS)


def _content_pixels(deep_HW: DeepArray, shown_HW: npt.NDArray[np.bool_] | None) -> DeepArray:
    """Return the shown pixels (n,) inside the margins; all shown ones if there are none; one black pixel if none is."""
    if shown_HW is None or shown_HW.all():
        return np.asarray(deep_HW[inside_margins(_to_8_bits(deep_HW))].ravel())
    box = inside_margins(_to_8_bits(np.where(shown_HW, deep_HW, 0)))
    inside_n = deep_HW[box][shown_HW[box]]
    if not len(inside_n):
        inside_n = deep_HW[shown_HW]
    return inside_n if len(inside_n) else np.zeros(1, deep_HW.dtype)


def _to_8_bits(deep_HW: DeepArray) -> npt.NDArray[np.uint8]:
    """Return the highest 8 bits that the brightest pixel uses."""
    return np.asarray(deep_HW >> max(0, int(deep_HW.max()).bit_length() - BITS), np.uint8)


def _count_used_bits(deep_n: DeepArray) -> int:
    """Count the bits that the brightest pixel uses, without high bits that only stray pixels and letters use."""
    highest = max(BITS, int(deep_n.max()).bit_length())
    for bits in range(BITS, highest - MIN_UNUSED_BITS + 1):
        above = deep_n[deep_n >= 1 << bits]
        share = above.size / deep_n.size
        if share <= MAX_STRAY_SHARE or (share <= MAX_LABEL_SHARE and len(np.unique(above)) <= MAX_LABEL_LEVELS):
            return bits
    return highest
