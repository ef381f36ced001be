"""A class activation map in, pictures on the radiograph's own pixel grid out.

Legend: h, w cells of the map; H, W the radiograph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from xray.preprocess import MapArray, Placement, restore
from xray.radiograph import PixelArray, Radiograph

Style = Literal["overlay", "heatmap", "map", "boxes"]

REGION_EVIDENCE = 0.9
"""What the evidence inside a proposed box exceeds, as a share of the peak's. Fractures are small: at half the peak a
region is fifty times as large as a finding's box and overlaps it by a fortieth; here it overlaps it most.
"""
MAX_REGIONS = 3
BOX_GRAY = 255
HOTTEST_JET = 224
"""Index of pure red in OpenCV's JET table; beyond it JET darkens, and the peak would look cooler than its rim."""


@dataclass(frozen=True)
class Cam:
    """Where the evidence lies.

    Attributes:
        evidence_HW: (H, W) float32 from 0 to 1, on the radiograph's grid; 1 at the peak.
    """

    evidence_HW: MapArray


@dataclass(frozen=True)
class Region:
    """A proposed box, in pixels of the radiograph; its origin is the upper left corner.

    Attributes:
        evidence: greatest in it, from 0 to 1.
    """

    left: int
    top: int
    width: int
    height: int
    evidence: float


def cam_on_radiograph(cam_hw: MapArray, placement: Placement) -> Cam:
    """Restore a map of logit contributions to the radiograph's frame and normalise it.

    Evidence counts from the map's least cell, not from 0: a map that speaks against abnormality everywhere still has
    its peak, and the probability beside it says how little that means.
    """
    return Cam(normalise(restore(cam_hw - cam_hw.min(), placement)))


def normalise(contributions: MapArray) -> MapArray:
    """Scale non-negative contributions so that the largest is 1; a flat map is 0 everywhere."""
    peak = float(contributions.max())
    return contributions / peak if peak > 0 else np.zeros_like(contributions)


def regions(cam: Cam) -> list[Region]:
    """Boxes around the parts where the evidence comes near its peak, the strongest first, a few at most."""
    hot_HW = (cam.evidence_HW > REGION_EVIDENCE).astype(np.uint8)
    count, numbers_HW, stats, _ = cv2.connectedComponentsWithStats(hot_HW)
    found = []
    for part in range(1, count):
        left, top, width, height = (int(side) for side in stats[part, :4])
        found.append(Region(left, top, width, height, float(cam.evidence_HW[numbers_HW == part].max())))
    return sorted(found, key=lambda region: -region.evidence)[:MAX_REGIONS]


def render(cam: Cam, radiograph: Radiograph, style: Style, alpha: float) -> PixelArray:
    """The map as pixels of the radiograph's height and width.

    `map` is (H, W) gray, `heatmap` (H, W, 3) RGB in JET, `overlay` the heatmap over the radiograph, `boxes` (H, W) the
    radiograph with its regions framed.
    """
    if style == "boxes":
        return framed(radiograph, regions(cam))
    if style == "map":
        return np.rint(255 * cam.evidence_HW).astype(np.uint8)
    heatmap = colour(cam)
    return heatmap if style == "heatmap" else overlay(cam, heatmap, radiograph, alpha)


def colour(cam: Cam) -> PixelArray:
    """(H, W, 3) RGB: JET from blue at 0 to pure red at 1."""
    index = cv2.convertScaleAbs(cam.evidence_HW, alpha=HOTTEST_JET)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(index, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB), np.uint8)


def overlay(cam: Cam, heatmap: PixelArray, radiograph: Radiograph, alpha: float) -> PixelArray:
    """(H, W, 3) RGB: the heatmap with opacity `alpha` at the peak, fading with the evidence, so that the radiograph
    shows through where it is least.
    """
    opacity_HW = np.float32(alpha) * cam.evidence_HW
    gray = cv2.cvtColor(radiograph.pixels, cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.blendLinear(gray, heatmap, 1 - opacity_HW, opacity_HW), np.uint8)


def framed(radiograph: Radiograph, boxes: Sequence[Region]) -> PixelArray:
    """(H, W): the radiograph with white frames around the boxes, as thick as it takes to see them."""
    pixels_HW = radiograph.pixels.copy()
    thickness = max(1, max(pixels_HW.shape) // 256)
    for box in boxes:
        last = box.left + box.width - 1, box.top + box.height - 1
        cv2.rectangle(pixels_HW, (box.left, box.top), last, BOX_GRAY, thickness)
    return pixels_HW
