"""A canvas in, the same anatomy as another exposure would have shown it out.

Legend: S canvas side, L window side.
"""

import cv2
import numpy as np

from xray.images.radiograph import PixelArray

FLIP_SHARE = 0.5
MAX_ROTATION = 30.0
"""Degrees, either way; as in the MURA paper (Rajpurkar et al. 2017, arXiv 1712.06957)."""
SCALE_RANGE = (0.85, 1.15)
MAX_SHIFT = 0.06
"""Share of the canvas side, either way."""
MAX_LOG_GAMMA = 0.3
"""Natural logarithm of the exponent, either way: 0.74 to 1.35."""
AIR = 16
"""Gray levels that hold no anatomy."""
ELSEWHERE_SHARE = 0.25
"""Of the windows of a radiograph with a finding, those that are cut anywhere."""


def augment(
    canvas_1SS: PixelArray, region_1SS: PixelArray, random: np.random.Generator
) -> tuple[PixelArray, PixelArray]:
    """One random flip, rotation, scale, shift and gamma of a canvas (1, S, S) uint8; its region moves with it."""
    move = _motion(canvas_1SS.shape[1], random)
    flip = random.random() < FLIP_SHARE
    moved, region = (_move(image_1SS[0], move, flip)[np.newaxis] for image_1SS in (canvas_1SS, region_1SS))
    return _regamma(moved, random), region


def cut_window(
    canvas_1SS: PixelArray, region_1SS: PixelArray, side: int, random: np.random.Generator
) -> tuple[PixelArray, PixelArray]:
    """A random window (1, L, L) of a canvas and of its region, with a pixel of the finding in it, if there is one.

    One time in four, and where there is no finding, it holds a pixel of the anatomy.
    """
    elsewhere = random.random() < ELSEWHERE_SHARE
    lit = region_1SS[0] if region_1SS.any() and not elsewhere else canvas_1SS[0] > AIR
    rows, columns = np.nonzero(lit if lit.any() else np.ones_like(lit))
    anchor = int(random.integers(len(rows)))
    top, left = (_window_start(int(axis[anchor]), side, canvas_1SS.shape[1], random) for axis in (rows, columns))
    window = np.s_[:, top : top + side, left : left + side]
    return canvas_1SS[window], region_1SS[window]


def _window_start(anchor: int, side: int, size: int, random: np.random.Generator) -> int:
    """Where a window of an axis begins that holds the anchor in its inner three quarters, if the canvas lets it."""
    start = anchor - int(random.integers(side // 8, side - side // 8))
    return min(max(start, 0), size - side)


def _motion(size: int, random: np.random.Generator) -> np.ndarray:
    centre = (size - 1) / 2
    angle = random.uniform(-MAX_ROTATION, MAX_ROTATION)
    matrix = np.array(cv2.getRotationMatrix2D((centre, centre), angle, random.uniform(*SCALE_RANGE)), np.float64)
    matrix[:, 2] += random.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * size
    return matrix


def _move(image_SS: PixelArray, motion: np.ndarray, flip: bool) -> PixelArray:
    if flip:
        image_SS = np.ascontiguousarray(image_SS[:, ::-1])
    return np.asarray(cv2.warpAffine(image_SS, motion, image_SS.shape, flags=cv2.INTER_LINEAR), np.uint8)


def _regamma(canvas_1SS: PixelArray, random: np.random.Generator) -> PixelArray:
    exponent = np.exp(random.uniform(-MAX_LOG_GAMMA, MAX_LOG_GAMMA))
    table = np.round(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)
    return np.asarray(table[canvas_1SS])
