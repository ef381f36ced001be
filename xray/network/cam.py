"""Restores class activation maps to the radiograph's pixel grid, and draws them.

Legend: h, w cells of the map; H, W pixels of the radiograph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from xray.images.preprocess import MapArray, Placement, restore
from xray.images.radiograph import PixelArray, Radiograph

Style = Literal["overlay", "heatmap", "map", "boxes"]

REGION_EVIDENCE = 0.9
"""Evidence at the edge of a proposed box, as a share of the peak's; at this value, boxes overlap fractures best.
Fractures are small: at half the peak, a region is fifty times as large as a fracture's box and overlaps it by 1/40.
"""
MAX_REGIONS = 3
"""Maximum number of proposed boxes per radiograph."""
BOX_GRAY = 255
"""Gray level of a box's frame, which is white."""
HOTTEST_JET = 224
"""Index of pure red in the JET table; above it JET gets darker, and the peak would look cooler than its rim."""
EIGHT_NEIGHBORS = np.ones((3, 3))
"""Structuring element: pixels that touch at a corner belong to one region."""


@dataclass(frozen=True)
class Cam:
    """A class activation map on the radiograph's pixel grid.

    Attributes:
        evidence_HW: float32 from 0 to 1; 1 at the peak.
    """

    evidence_HW: MapArray


@dataclass(frozen=True)
class Region:
    """A box that a class activation map proposes, in pixels of the radiograph; the origin is the upper left corner.

    Attributes:
        evidence: largest evidence in the box, from 0 to 1.
    """

    left: int
    top: int
    width: int
    height: int
    evidence: float


def cam_on_radiograph(cam_hw: MapArray, placement: Placement) -> Cam:
    """Restore a class activation map's logit contributions (h, w) to the radiograph's frame and normalize it.

    Evidence is measured from the map's smallest cell and not from 0: a map with evidence against abnormality everywhere
    still has a peak, and the low probability says how little it means.
    """
    return Cam(normalize(restore(cam_hw - cam_hw.min(), placement)))


def normalize(contributions_HW: MapArray) -> MapArray:
    """Scale a CAM's non-negative contributions (H, W) so that the largest is 1; a map of zeros stays as it is."""
    peak = float(contributions_HW.max())
    return contributions_HW / peak if peak > 0 else np.zeros_like(contributions_HW)


def find_regions(cam: Cam) -> list[Region]:
    """Return boxes around a CAM's connected parts above `REGION_EVIDENCE`, strongest first, at most `MAX_REGIONS`."""
    numbers_HW, _ = ndimage.label(cam.evidence_HW > REGION_EVIDENCE, EIGHT_NEIGHBORS)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbers_HW), start=1):
        evidence = cam.evidence_HW[rows, columns][numbers_HW[rows, columns] == number].max()
        height, width = rows.stop - rows.start, columns.stop - columns.start
        found.append(Region(columns.start, rows.start, width, height, float(evidence)))
    return sorted(found, key=lambda region: -region.evidence)[:MAX_REGIONS]


def render(cam: Cam, radiograph: Radiograph, style: Style, alpha: float) -> PixelArray:
    """Draw a CAM on the radiograph's own pixel grid, as uint8 pixels, in one of the styles.

    `map` is (H, W) gray, `heatmap` (H, W, 3) RGB in JET, `overlay` (H, W, 3) the heatmap over the radiograph, `boxes`
    (H, W) the radiograph with its regions framed.

    Args:
        alpha: opacity of the overlay at the peak, from 0 to 1.
    """
    if style == "boxes":
        return draw_boxes(radiograph, find_regions(cam))
    if style == "map":
        return np.rint(255 * cam.evidence_HW).astype(np.uint8)
    heatmap = draw_heatmap(cam)
    return heatmap if style == "heatmap" else draw_overlay(cam, heatmap, radiograph, alpha)


def draw_heatmap(cam: Cam) -> PixelArray:
    """Draw a CAM in JET colors, from blue at 0 to pure red at 1: uint8 RGB (H, W, 3)."""
    picture = Image.fromarray(np.rint(HOTTEST_JET * cam.evidence_HW).astype(np.uint8))
    picture.putpalette(_jet().tobytes())
    return np.asarray(picture.convert("RGB"))


def draw_overlay(cam: Cam, heatmap_HW3: PixelArray, radiograph: Radiograph, alpha: float) -> PixelArray:
    """Return the class activation map's heatmap over the radiograph: uint8 RGB (H, W, 3).

    The opacity is `alpha` at the peak and falls with the evidence, so that the radiograph shows through elsewhere.
    """
    opacity_HW = np.rint(np.float32(255 * alpha) * cam.evidence_HW).astype(np.uint8)
    gray = Image.fromarray(radiograph.pixels).convert("RGB")
    return np.asarray(Image.composite(Image.fromarray(heatmap_HW3), gray, Image.fromarray(opacity_HW)))


def draw_boxes(radiograph: Radiograph, boxes: Sequence[Region]) -> PixelArray:
    """Frame a CAM's boxes in white on the radiograph, thicker on larger images: uint8 (H, W)."""
    picture = Image.fromarray(radiograph.pixels.copy())
    thickness = max(1, max(picture.size) // 256)
    outside = thickness // 2
    for box in boxes:
        first = box.left - outside, box.top - outside
        last = box.left + box.width - 1 + outside, box.top + box.height - 1 + outside
        ImageDraw.Draw(picture).rectangle((*first, *last), outline=BOX_GRAY, width=thickness)
    return np.asarray(picture)


def _jet() -> PixelArray:
    """Return OpenCV's table JET: uint8 RGB (256, 3). Each channel rises, stays and falls, by 4 levels at a time."""
    index = np.arange(256)
    rises = np.stack([4 * index - 382, 4 * index - 128, 4 * index + 128], axis=1)
    falls = np.stack([1148 - 4 * index, 892 - 4 * index, 638 - 4 * index], axis=1)
    table = np.minimum(rises, falls).clip(0, 255).astype(np.uint8)
    table[159, 2] = 1  # OpenCV's table is rounded differently here
    return table
