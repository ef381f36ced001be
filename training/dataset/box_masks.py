"""Boxes of findings in, their place on the network's canvas and in its map out.

Legend: H, W radiograph; S canvas side; h, w cells of the map.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from training.dataset.annotations import Box
from xray.images.preprocess import Placement
from xray.images.radiograph import PixelArray

INSIDE = 255
"""Value of a canvas pixel that lies in a box."""


def draw_boxes(boxes: Sequence[Box], placement: Placement) -> PixelArray:
    """The boxes as a canvas (1, S, S) uint8: `INSIDE` within a box, 0 elsewhere; each box has a pixel at least."""
    canvas_SS = np.zeros((placement.size, placement.size), np.uint8)
    (height, width), content = placement.source, placement.content
    scale = np.array([placement.scaled[1] / content.width, placement.scaled[0] / content.height])
    origin = np.array([placement.left, placement.top]) - scale * (content.left, content.top)
    for box in boxes:
        start = origin + scale * (box.left * width, box.top * height)
        first = np.floor(start.clip(0, placement.size - 1)).astype(int)
        last = np.ceil(start + scale * (box.width * width, box.height * height)).astype(int)
        canvas_SS[first[1] : max(last[1], first[1] + 1), first[0] : max(last[0], first[0] + 1)] = INSIDE
    return canvas_SS[np.newaxis]


def cells_inside(region_1SS: PixelArray, cells: int) -> np.ndarray:
    """The cells (h, w) bool of a map that a region covers, by half as much as it covers the one it covers most.

    A finding is often smaller than a cell: then the cell that holds most of it is meant.
    """
    covered_hw = cv2.resize(region_1SS[0], (cells, cells), interpolation=cv2.INTER_AREA)
    return np.asarray((covered_hw > 0) & (covered_hw >= covered_hw.max() / 2))
