"""Reduce gray of more than 8 bits to 8 by the levels that an image uses, and not by those of a few stray pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xray.images.margins import inside_margins

BITS = 8
STRAY_SHARE = 0.0005
"""Of the pixels: so few, however bright, do not decide which bits are significant."""
LABEL_SHARE, LABEL_LEVELS = 0.05, 16
"""Share of the pixels, and the number of levels they take, up to which they are burnt-in letters and frames."""
UNUSED_BITS = 2
"""Bits that must be unused before they are dropped: one alone costs little, and the image stays as it was exported."""
DARKEST_PERCENTILE = 0.5

Deep = npt.NDArray[Any]


@dataclass(frozen=True)
class Levels:
    """The gray levels that become 0 to 255.

    Attributes:
        lowest: becomes 0, as do those below.
        dropped_bits: lowest bits that are left out above it; what is beyond 255 then becomes 255.
    """

    lowest: int
    dropped_bits: int

    def __call__(self, deep: Deep) -> npt.NDArray[np.uint8]:
        above = np.maximum(deep, self.lowest) - self.lowest if self.lowest else deep
        return np.asarray(np.minimum(above >> self.dropped_bits, 255), np.uint8)


def significant_levels(deep_HW: Deep, shown_HW: npt.NDArray[np.bool_] | None = None) -> Levels:
    """Those of an image of unsigned integers, inside its margins.

    What `shown_HW` leaves out, padding for one, has no part in it.

    The highest bit that more than stray pixels use is the first of the eight that are kept: 12 bits stored in 16 lose
    4. An image that uses a narrow band far above 0, as signed values with an offset do, starts with its darkest level.
    """
    inside_n = _inside(deep_HW, shown_HW)
    lowest = int(np.percentile(inside_n, DARKEST_PERCENTILE, method="lower"))
    bits, bits_of_band = _used_bits(inside_n), _used_bits(np.maximum(inside_n, lowest) - lowest)
    if bits_of_band <= bits - UNUSED_BITS:
        return Levels(lowest, bits_of_band - BITS)
    return Levels(0, bits - BITS)


def _inside(deep_HW: Deep, shown_HW: npt.NDArray[np.bool_] | None) -> Deep:
    """The pixels (n,) inside the margins that are shown, or all that are, or a black one if none is."""
    if shown_HW is None or shown_HW.all():
        return np.asarray(deep_HW[inside_margins(_coarse(deep_HW))].ravel())
    place = inside_margins(_coarse(np.where(shown_HW, deep_HW, 0)))
    inside_n = deep_HW[place][shown_HW[place]]
    if not len(inside_n):
        inside_n = deep_HW[shown_HW]
    return inside_n if len(inside_n) else np.zeros(1, deep_HW.dtype)


def _coarse(deep_HW: Deep) -> npt.NDArray[np.uint8]:
    """By the highest 8 bits of its brightest pixel."""
    return np.asarray(deep_HW >> max(0, int(deep_HW.max()).bit_length() - BITS), np.uint8)


def _used_bits(deep_n: Deep) -> int:
    """Bits of the brightest pixel, or fewer where only stray pixels and letters use the highest ones."""
    highest = max(BITS, int(deep_n.max()).bit_length())
    for bits in range(BITS, highest - UNUSED_BITS + 1):
        above = deep_n[deep_n >= 1 << bits]
        share = above.size / deep_n.size
        if share <= STRAY_SHARE or (share <= LABEL_SHARE and len(np.unique(above)) <= LABEL_LEVELS):
            return bits
    return highest
