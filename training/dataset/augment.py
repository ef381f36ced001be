"""Augments canvases at random, as if the same anatomy had been exposed again.

Legend: S canvas side, L window side.
"""

import cv2
import numpy as np

from xray.images.radiograph import PixelArray

FLIP_PROBABILITY = 0.5
"""Probability of a horizontal flip: left and right limbs are equally common."""
MAX_ROTATION_DEGREES = 30.0
"""Maximum rotation in either direction, as in the MURA paper (Rajpurkar et al. 2017, arXiv 1712.06957)."""
SCALE_RANGE = (0.85, 1.15)
"""Range of the scale factor: limbs differ in size, and detectors in distance."""
MAX_SHIFT = 0.06
"""Maximum shift in either direction, as a share of the canvas side; most of the anatomy stays on the canvas."""
MAX_LOG_GAMMA = 0.3
"""Maximum absolute value of the natural logarithm of the gamma exponent, which is 0.74 to 1.35."""
AIR_LEVEL = 16
"""Largest gray level of air, which shows no anatomy."""
ANYWHERE_PROBABILITY = 0.25
"""Probability that a window is cut anywhere despite a finding, so that such radiographs also give normal windows."""


def augment(
    canvas_1SS: PixelArray, region_1SS: PixelArray, random: np.random.Generator
) -> tuple[PixelArray, PixelArray]:
    """Augment a canvas (1, S, S) at random: flip, rotate, scale and shift it with its region, and change its gamma."""
    move = _motion(canvas_1SS.shape[1], random)
    flip = random.random() < FLIP_PROBABILITY
    moved, region = (_move(image_1SS[0], move, flip)[np.newaxis] for image_1SS in (canvas_1SS, region_1SS))
    return _regamma(moved, random), region


def cut_window(
    canvas_1SS: PixelArray, region_1SS: PixelArray, side: int, random: np.random.Generator
) -> tuple[PixelArray, PixelArray]:
    """Cut a random training window (1, L, L) from a canvas and its region, with a pixel of the finding if there is one.

    One time in four, and if there is no finding, it contains a pixel of the anatomy instead.
    """
    anywhere = random.random() < ANYWHERE_PROBABILITY
    lit = region_1SS[0] if region_1SS.any() and not anywhere else canvas_1SS[0] > AIR_LEVEL
    rows, columns = np.nonzero(lit if lit.any() else np.ones_like(lit))
    anchor = int(random.integers(len(rows)))
    top, left = (_window_start(int(axis[anchor]), side, canvas_1SS.shape[1], random) for axis in (rows, columns))
    window = np.s_[:, top : top + side, left : left + side]
    return canvas_1SS[window], region_1SS[window]


def _window_start(anchor: int, side: int, size: int, random: np.random.Generator) -> int:
    """Return the start of a window on one axis; the anchor is in its inner three quarters, unless the canvas ends."""
    start = anchor - int(random.integers(side // 8, side - side // 8))
    return min(max(start, 0), size - side)


def _motion(size: int, random: np.random.Generator) -> np.ndarray:
    center = (size - 1) / 2
    angle = random.uniform(-MAX_ROTATION_DEGREES, MAX_ROTATION_DEGREES)
    matrix = np.array(cv2.getRotationMatrix2D((center, center), angle, random.uniform(*SCALE_RANGE)), np.float64)
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
