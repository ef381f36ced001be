"""Decides whether an image is a negative: bone dark in bright air instead of bone bright in dark air.

Mean brightness is enough if air surrounds a limb, but not if bone and soft tissue fill the image. So the brighter
of the image and its negative is used, and the test is whether its bright part is air. By construction, the result
for an image is the opposite of the result for its negative.
"""

import numpy as np
import numpy.typing as npt

from xray.images.resample import resample

WHITE = 255
"""The brightest gray level."""
THUMBNAIL_SIDE = 64
"""Side in pixels of the square thumbnail that is examined; the aspect ratio does not matter."""
BORDER_COLUMNS = 2
"""Number of columns of the thumbnail at the left and at the right, where air would be."""
RANGE_PERCENTILES = (5, 95)
"""Percentiles that count as black and white, so that collimator edges and burned-in letters have no effect."""
BRIGHT_ABOVE = 0.9
"""A pixel above this share of the range from black to white is bright."""
BRIGHT_WEIGHT, AIR_ABOVE = 0.6, 0.06
"""Weight of the share of bright pixels, and the sum above which they are air. Both were chosen on FracAtlas (limbs in
air) and KneeOA (images without air): 5 of 3,277 and 114 of 6,604 radiographs are called negatives, and most of these
114 are negatives."""


def is_negative(pixels_HW: npt.NDArray[np.uint8]) -> bool:
    """Return whether an X-ray, gray pixels (H, W), is a negative, in which bone is dark."""
    # Floating point, because rounding to whole levels would treat an image and its negative differently.
    thumbnail = resample(pixels_HW, (THUMBNAIL_SIDE, THUMBNAIL_SIDE)).astype(np.float64) / WHITE
    is_brighter = float(thumbnail.mean()) > 0.5
    return _brightness_is_air(thumbnail if is_brighter else 1 - thumbnail) == is_brighter


def _brightness_is_air(thumbnail: npt.NDArray[np.float64]) -> bool:
    """Return whether bright pixels are air, which is at the sides and uniform; bone is in the middle and varies."""
    quarter = THUMBNAIL_SIDE // 4
    center = thumbnail[quarter:-quarter, quarter:-quarter].mean()
    brighter_side = max(thumbnail[:, :BORDER_COLUMNS].mean(), thumbnail[:, -BORDER_COLUMNS:].mean())
    black, white = np.percentile(thumbnail, RANGE_PERCENTILES)
    bright_share = (thumbnail > black + BRIGHT_ABOVE * (white - black)).mean()
    return bool(brighter_side - center + BRIGHT_WEIGHT * bright_share > AIR_ABOVE)
