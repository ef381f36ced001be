"""A class activation map in, pictures on the radiograph's own pixel grid out.

Legend: h, w cells of the map; H, W the radiograph.
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
"""What the evidence inside a proposed box exceeds, as a share of the peak's. Fractures are small: at half the peak a
region is fifty times as large as a finding's box and overlaps it by a fortieth; here it overlaps it most.
"""
MAX_REGIONS = 3
BOX_GRAY = 255
HOTTEST_JET = 224
"""Index of pure red in the JET table; beyond it JET darkens, and the peak would look cooler than its rim."""
EIGHT_NEIGHBORS = np.ones((3, 3))


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
    numbers_HW, _ = ndimage.label(cam.evidence_HW > REGION_EVIDENCE, EIGHT_NEIGHBORS)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbers_HW), start=1):
        evidence = cam.evidence_HW[rows, columns][numbers_HW[rows, columns] == number].max()
        height, width = rows.stop - rows.start, columns.stop - columns.start
        found.append(Region(columns.start, rows.start, width, height, float(evidence)))
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
    picture = Image.fromarray(np.rint(HOTTEST_JET * cam.evidence_HW).astype(np.uint8))
    picture.putpalette(_jet().tobytes())
    return np.asarray(picture.convert("RGB"))


def overlay(cam: Cam, heatmap: PixelArray, radiograph: Radiograph, alpha: float) -> PixelArray:
    """(H, W, 3) RGB: the heatmap with opacity `alpha` at the peak, fading with the evidence, so that the radiograph
    shows through where it is least.
    """
    opacity_HW = np.rint(np.float32(255 * alpha) * cam.evidence_HW).astype(np.uint8)
    gray = Image.fromarray(radiograph.pixels).convert("RGB")
    return np.asarray(Image.composite(Image.fromarray(heatmap), gray, Image.fromarray(opacity_HW)))


def framed(radiograph: Radiograph, boxes: Sequence[Region]) -> PixelArray:
    """(H, W): the radiograph with white frames around the boxes, as thick as it takes to see them."""
    picture = Image.fromarray(radiograph.pixels.copy())
    thickness = max(1, max(picture.size) // 256)
    outside = thickness // 2
    for box in boxes:
        first = box.left - outside, box.top - outside
        last = box.left + box.width - 1 + outside, box.top + box.height - 1 + outside
        ImageDraw.Draw(picture).rectangle((*first, *last), outline=BOX_GRAY, width=thickness)
    return np.asarray(picture)


def _jet() -> PixelArray:
    """(256, 3) RGB: OpenCV's table of that name. Each channel rises, stays and falls, by 4 levels at a time."""
    index = np.arange(256)
    rises = np.stack([4 * index - 382, 4 * index - 128, 4 * index + 128], axis=1)
    falls = np.stack([1148 - 4 * index, 892 - 4 * index, 638 - 4 * index], axis=1)
    table = np.minimum(rises, falls).clip(0, 255).astype(np.uint8)
    table[159, 2] = 1  # where OpenCV's table was rounded the other way
    return table
