"""The picture of a radiograph that goes back to the archive: its heatmap over it, small enough to keep many."""

import math
from dataclasses import dataclass, field

import numpy as np

from xray.images.radiograph import PixelArray, Radiograph
from xray.images.resample import resample
from xray.network.cam import Cam, render

MAX_IN_ROW = 4
"""Pictures beside each other in a study's capture."""
MAX_HEIGHT, MAX_SUM = 1024, 3072
"""Pixels of a picture, and of the heights of all rows: the more radiographs, the smaller is each."""
MAX_SQUARES = 1.5
"""Area of a picture by that of a square of its greatest height; wider ones are smaller."""
OPACITY = 0.5
"""Of the heat at its peak."""


@dataclass(frozen=True)
class Picture:
    """RGB pixels, which are square whatever those of the radiograph are.

    Attributes:
        height, width: of the picture.
        rgb: height x width x 3 bytes.
        radiograph_height, radiograph_width: in pixels of the radiograph, which its regions count in.
    """

    height: int
    width: int
    rgb: bytes = field(repr=False)
    radiograph_height: int
    radiograph_width: int

    @property
    def pixels_HW3(self) -> PixelArray:
        return np.frombuffer(self.rgb, np.uint8).reshape(self.height, self.width, 3)


def tallest(count: int) -> float:
    """The greatest height of a picture in a study of so many radiographs."""
    return min(MAX_HEIGHT, MAX_SUM / math.ceil(count / MAX_IN_ROW))


def picture_of(cam: Cam, radiograph: Radiograph, number: int = 1) -> Picture:
    """Draw the heatmap on the radiograph, upright and with bone bright, after both have been made small.

    Args:
        number: of the radiograph in its study. The study has at least so many, so no greater height is drawn, and the
            pictures of a whole study take about 100 MB at most, however many they are.
    """
    height, width = _size(radiograph, tallest(number))
    gray_HW = np.rint(resample(radiograph.pixels, (height, width))).astype(np.uint8)
    evidence_HW = resample(cam.evidence_HW, (height, width))
    overlay_HW3 = render(Cam(evidence_HW), Radiograph(gray_HW), "overlay", OPACITY)
    return Picture(height, width, overlay_HW3.tobytes(), radiograph.height, radiograph.width)


def _size(radiograph: Radiograph, limit: float) -> tuple[int, int]:
    """Height and width of at most `limit` pixels and `MAX_SQUARES` squares, in the proportions of the anatomy."""
    tall, wide = radiograph.height * max(1, radiograph.pixel_aspect), radiograph.width / min(1, radiograph.pixel_aspect)
    scale = min(1.0, limit / tall, limit * math.sqrt(MAX_SQUARES / (tall * wide)))
    return max(1, round(scale * tall)), max(1, round(scale * wide))
