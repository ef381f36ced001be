"""Detects edges with the method of Canny (1986); the result is the same as OpenCV's.

The gradients are those of Sobel; edges are thinned across their direction and joined by hysteresis.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

TANGENT_22 = np.sqrt(2) - 1
"""The tangent of 22.5 degrees, up to which a gradient counts as horizontal."""
EIGHT_NEIGHBORS = np.ones((3, 3))
"""Structuring element: pixels that touch at a corner belong to the same edge."""

BoolImage = npt.NDArray[np.bool_]


def canny(pixels_HW: npt.NDArray[np.uint8], low: int, high: int) -> BoolImage:
    """Find Canny edges, (H, W): ridges of the gradient above `low` gray levels, connected to one above `high`."""
    gray_HW = pixels_HW.astype(np.int32)
    across_HW, down_HW = (ndimage.sobel(gray_HW, axis, mode="nearest") for axis in (1, 0))
    gradient_HW = np.abs(across_HW) + np.abs(down_HW)
    ridge_HW = (gradient_HW > low) & _is_ridge(gradient_HW, across_HW, down_HW)
    numbers_HW, count = ndimage.label(ridge_HW, EIGHT_NEIGHBORS)
    is_edge = np.zeros(count + 1, bool)
    is_edge[numbers_HW[ridge_HW & (gradient_HW > high)]] = True
    return np.asarray(is_edge[numbers_HW])


def _is_ridge(
    gradient_HW: npt.NDArray[np.int32], across_HW: npt.NDArray[np.int32], down_HW: npt.NDArray[np.int32]
) -> BoolImage:
    """Return, (H, W), whether the gradient is larger than at the two neighbors in its direction."""
    padded = np.pad(gradient_HW, 1)
    height, width = gradient_HW.shape

    def neighbor(row: int, column: int) -> npt.NDArray[np.int32]:
        return padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]

    x_HW, y_HW = np.abs(across_HW), np.abs(down_HW)
    is_horizontal = y_HW < x_HW * TANGENT_22
    is_vertical = y_HW > x_HW * (TANGENT_22 + 2)
    falls = (across_HW < 0) != (down_HW < 0)
    diagonal = np.where(
        falls,
        (gradient_HW > neighbor(-1, 1)) & (gradient_HW > neighbor(1, -1)),
        (gradient_HW > neighbor(-1, -1)) & (gradient_HW > neighbor(1, 1)),
    )
    horizontal = (gradient_HW > neighbor(0, -1)) & (gradient_HW >= neighbor(0, 1))
    vertical = (gradient_HW > neighbor(-1, 0)) & (gradient_HW >= neighbor(1, 0))
    return np.where(is_horizontal, horizontal, np.where(is_vertical, vertical, diagonal))
