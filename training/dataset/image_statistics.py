"""Describes an image by numbers that hardly show a finding, to see how much of the labels they give away.

Legend: F numbers.
"""

import cv2
import numpy as np
import numpy.typing as npt

from xray.images.radiograph import Radiograph

GRAY_BINS, THUMBNAIL_SIDE = 16, 8
"""Number of bins of the gray histogram, and side of the thumbnail in pixels."""
BORDER_SHARE = 0.02
"""Width of a border whose gray level is measured, as a share of the image's side."""


def image_statistics(radiograph: Radiograph) -> npt.NDArray[np.float64]:
    """Return the statistics of an image, (F,).

    They are its width, height and aspect, the histogram of its gray levels, the mean level at each of its four borders,
    its sharpness (the variance of the Laplacian), and a thumbnail.
    """
    pixels_HW = radiograph.pixels
    height, width = pixels_HW.shape
    rows, columns = (max(1, round(BORDER_SHARE * side)) for side in (height, width))
    borders = pixels_HW[:rows], pixels_HW[-rows:], pixels_HW[:, :columns], pixels_HW[:, -columns:]
    return np.concatenate(
        [
            [width, height, width / height],
            np.histogram(pixels_HW, GRAY_BINS, (0, 256))[0] / pixels_HW.size,
            [border.mean() for border in borders],
            [cv2.Laplacian(pixels_HW, cv2.CV_64F).var()],
            cv2.resize(pixels_HW, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA).ravel(),
        ]
    )
