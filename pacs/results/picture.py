"""Draws heatmaps over radiographs for the archive, small enough to keep the pictures of a whole study in memory."""

import math
from dataclasses import dataclass, field

import numpy as np

from xray.images.radiograph import PixelArray, Radiograph
from xray.images.resample import resample
from xray.network.cam import Cam, render

MAX_IN_ROW = 4
"""Pictures in one row of a study's capture; more would be too small on a screen."""
MAX_HEIGHT, MAX_TOTAL_HEIGHT = 1024, 3072
"""Maximum heights of a picture and of all rows together, in pixels; pictures of large studies are smaller."""
MAX_AREA_IN_SQUARES = 1.5
"""Maximum area of a picture, as a multiple of its squared maximum height; a wider picture is scaled down."""
OPACITY = 0.5
"""Opacity of the heatmap at its peak, from 0 to 1."""


@dataclass(frozen=True)
class Picture:
    """An RGB picture of a radiograph and its heatmap, with square pixels even if the radiograph's are not square.

    Attributes:
        height, width: size of the picture, in its own pixels.
        rgb: height x width x 3 bytes.
        radiograph_height, radiograph_width: size of the radiograph in its own pixels, the unit of its regions.
    """

    height: int
    width: int
    rgb: bytes = field(repr=False)
    radiograph_height: int
    radiograph_width: int

    @property
    def pixels_HW3(self) -> PixelArray:
        """The picture of a radiograph as (H, W, 3) uint8 RGB."""
        return np.frombuffer(self.rgb, np.uint8).reshape(self.height, self.width, 3)


def max_picture_height(count: int) -> float:
    """Return how high the heatmap's picture of one radiograph may be, in pixels, in a study of `count` radiographs."""
    return min(MAX_HEIGHT, MAX_TOTAL_HEIGHT / math.ceil(count / MAX_IN_ROW))


def draw_picture(cam: Cam, radiograph: Radiograph, number: int = 1) -> Picture:
    """Draw the archive's picture: the heatmap on the radiograph, upright, with bright bone, both scaled down.

    Args:
        number: position of the radiograph in its study, from 1. The study has at least that many radiographs, so the
            height is limited accordingly, and the pictures of a whole study take at most about 100 MB.
    """
    height, width = _size(radiograph, max_picture_height(number))
    gray_HW = np.rint(resample(radiograph.pixels, (height, width))).astype(np.uint8)
    evidence_HW = resample(cam.evidence_HW, (height, width))
    overlay_HW3 = render(Cam(evidence_HW), Radiograph(gray_HW), "overlay", OPACITY)
    return Picture(height, width, overlay_HW3.tobytes(), radiograph.height, radiograph.width)


def _size(radiograph: Radiograph, limit: float) -> tuple[int, int]:
    """Return height and width in pixels, within the limits and in the proportions of the anatomy."""
    tall, wide = radiograph.height * max(1, radiograph.pixel_aspect), radiograph.width / min(1, radiograph.pixel_aspect)
    scale = min(1.0, limit / tall, limit * math.sqrt(MAX_AREA_IN_SQUARES / (tall * wide)))
    return max(1, round(scale * tall)), max(1, round(scale * wide))
