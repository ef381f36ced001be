"""Gray pixels in, whether they are a negative out: bone dark in bright air instead of bone bright in dark air.

Mean brightness alone tells it where air surrounds a limb, and fails on crops that bone and soft tissue fill. So we look
at the brighter one of the image and its negative, and ask whether its brightness is air. The answer for an image is by
construction the opposite of the answer for its negative.
"""

import numpy as np
import numpy.typing as npt

from xray.images.resample import resample

WHITE = 255
THUMBNAIL = 64
"""Side in pixels of the square on which polarity is judged; the aspect ratio does not matter to it."""
SIDE = 2
"""Thumbnail columns at the left and at the right, where air is if it is anywhere."""
RANGE_PERCENTILES = (5, 95)
"""Gray levels taken for black and white, so that collimator edges and burnt-in letters do not count."""
NEARLY_WHITE = 0.9
"""Share of that range above which a pixel counts as bright."""
BRIGHT_WEIGHT, AIR_ABOVE = 0.6, 0.06
"""Chosen on the radiographs of FracAtlas (limbs in air) and of KneeOA (crops without air): 5 of 3,277 and 114 of 6,604
are called negatives, and most of those 114 are."""


def is_negative(pixels_HW: npt.NDArray[np.uint8]) -> bool:
    """Whether bone is dark in (H, W) gray pixels of an X-ray."""
    # In floating point, for rounding to whole levels would treat an image and its negative differently.
    thumbnail = resample(pixels_HW, (THUMBNAIL, THUMBNAIL)).astype(np.float64) / WHITE
    is_brighter = float(thumbnail.mean()) > 0.5
    return _brightness_is_air(thumbnail if is_brighter else 1 - thumbnail) == is_brighter


def _brightness_is_air(thumbnail: npt.NDArray[np.float64]) -> bool:
    """Air lies at the sides and is one flat brightness; bone lies in the middle and is many."""
    quarter = THUMBNAIL // 4
    centre = thumbnail[quarter:-quarter, quarter:-quarter].mean()
    brighter_side = max(thumbnail[:, :SIDE].mean(), thumbnail[:, -SIDE:].mean())
    black, white = np.percentile(thumbnail, RANGE_PERCENTILES)
    bright_share = (thumbnail > black + NEARLY_WHITE * (white - black)).mean()
    return bool(brighter_side - centre + BRIGHT_WEIGHT * bright_share > AIR_ABOVE)
