"""A canvas in, the same anatomy as another exposure would have shown it out."""

import cv2
import numpy as np

from xray.image import PixelArray

FLIP_SHARE = 0.5
MAX_ROTATION = 30.0
"""Degrees, either way; as in the MURA paper (Rajpurkar et al. 2017, arXiv 1712.06957)."""
SCALE_RANGE = (0.85, 1.15)
MAX_SHIFT = 0.06
"""Share of the canvas side, either way."""
MAX_LOG_GAMMA = 0.3
"""Natural logarithm of the exponent, either way: 0.74 to 1.35."""


def augment(canvas_1SS: PixelArray, random: np.random.Generator) -> PixelArray:
    """One random flip, rotation, scale, shift and gamma of a canvas (1, S, S) uint8."""
    return _regamma(_move(canvas_1SS[0], random), random)[np.newaxis]


def _move(canvas_SS: PixelArray, random: np.random.Generator) -> PixelArray:
    size = canvas_SS.shape[0]
    centre = (size - 1) / 2
    angle = random.uniform(-MAX_ROTATION, MAX_ROTATION)
    matrix = cv2.getRotationMatrix2D((centre, centre), angle, random.uniform(*SCALE_RANGE))
    matrix[:, 2] += random.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * size
    if random.random() < FLIP_SHARE:
        canvas_SS = np.ascontiguousarray(canvas_SS[:, ::-1])
    return np.asarray(cv2.warpAffine(canvas_SS, matrix, (size, size), flags=cv2.INTER_LINEAR), np.uint8)


def _regamma(canvas_SS: PixelArray, random: np.random.Generator) -> PixelArray:
    exponent = np.exp(random.uniform(-MAX_LOG_GAMMA, MAX_LOG_GAMMA))
    table = np.round(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)
    return np.asarray(table[canvas_SS])
