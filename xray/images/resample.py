"""Scales an image to another height and width; the result is the same as OpenCV's.

Shrinking averages the area under each new pixel, like INTER_AREA; enlarging is bilinear, like INTER_LINEAR. OpenCV is
not used, because its wheel contains its own OpenSSL.

Legend: H, W the image; h, w the image after scaling; k weights of a new row.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

FloatImage = npt.NDArray[np.float32]


def resample(image_HW: npt.NDArray[Any], size: tuple[int, int]) -> FloatImage:
    """Scale an image to (h, w) float32, where `size` is (h, w); rows and columns are scaled independently."""
    halfway_hW = _resample_rows(image_HW, size[0])
    return np.ascontiguousarray(_resample_rows(np.ascontiguousarray(halfway_hW.T), size[1]).T)


def _resample_rows(image_HW: npt.NDArray[Any], height: int) -> FloatImage:
    """Compute each new row as a weighted sum of a few consecutive old rows."""
    source = len(image_HW)
    if height == source:
        return image_HW.astype(np.float32)
    first_h, weights_hk = _area_weights(height, source) if height < source else _bilinear_weights(height, source)
    rows_hW = np.empty((height, image_HW.shape[1]), np.float32)
    for row, (first, weights_k) in enumerate(zip(first_h.tolist(), weights_hk, strict=True)):
        rows_hW[row] = weights_k @ image_HW[first : first + len(weights_k)].astype(np.float32, copy=False)
    return rows_hW


def _area_weights(height: int, source: int) -> tuple[npt.NDArray[np.intp], FloatImage]:
    """Return, for shrinking, the first of the k old rows under each new row (h,), and their weights (h, k)."""
    start_h, stop_h = (np.arange(count, count + height) * source / height for count in (0, 1))
    k = min(source, int(np.ceil(source / height)) + 1)
    first_h = np.minimum(start_h.astype(np.intp), source - k)
    edges_hk = (first_h[:, np.newaxis] + np.arange(k + 1)).clip(start_h[:, np.newaxis], stop_h[:, np.newaxis])
    return first_h, np.asarray(np.diff(edges_hk) * (height / source), np.float32)


def _bilinear_weights(height: int, source: int) -> tuple[npt.NDArray[np.intp], FloatImage]:
    """Return, for enlarging, the first of the two old rows around each new row (h,), and their weights (h, k)."""
    center_h = ((np.arange(height) + 0.5) * source / height - 0.5).clip(0, source - 1)
    k = min(source, 2)
    first_h = np.minimum(center_h.astype(np.intp), source - k)
    distances_hk = np.abs(first_h[:, np.newaxis] + np.arange(k) - center_h[:, np.newaxis])
    return first_h, np.asarray(1 - distances_hk, np.float32)
