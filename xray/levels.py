"""Reduce gray of more than 8 bits to 8 by the levels that an image uses, and not by those of a few stray pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xray.margins import inside_margins

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


def significant_levels(deep_HW: Deep) -> Levels:
    """Those of an image of unsigned integers, inside its margins.

    The highest bit that more than stray pixels use is the first of the eight that are kept: 12 bits stored in 16 lose
    4. An image that uses a narrow band far above 0, as signed values with an offset do, starts with its darkest level.
    """
    coarse_HW = (deep_HW >> max(0, int(deep_HW.max()).bit_length() - BITS)).astype(np.uint8)
    inside_hw = deep_HW[inside_margins(coarse_HW)]
    lowest = int(np.percentile(inside_hw, DARKEST_PERCENTILE, method="lower"))
    bits, bits_of_band = _used_bits(inside_hw), _used_bits(np.maximum(inside_hw, lowest) - lowest)
    if bits_of_band <= bits - UNUSED_BITS:
        return Levels(lowest, bits_of_band - BITS)
    return Levels(0, bits - BITS)


def _used_bits(deep_hw: Deep) -> int:
    """Bits of the brightest pixel, or fewer where only stray pixels and letters use the highest ones."""
    highest = max(BITS, int(deep_hw.max()).bit_length())
    for bits in range(BITS, highest - UNUSED_BITS + 1):
        above = deep_hw[deep_hw >= 1 << bits]
        share = above.size / deep_hw.size
        if share <= STRAY_SHARE or (share <= LABEL_SHARE and len(np.unique(above)) <= LABEL_LEVELS):
            return bits
    return highest
