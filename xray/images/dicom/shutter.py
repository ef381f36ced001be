"""Reads the display shutter of a DICOM file, which says which part of the pixels a viewer shows (PS3.3 C.7.6.11).

Rectangular, circular and polygonal shapes are read; the pixels inside all of them are shown. The bitmap shape is not
read, because it belongs to presentation states. The collimator tags (0018,1700 and following) are not used: viewers do
not apply them, and some files have collimator edges outside the image.

Shutter Presentation Value, the gray that covers the rest, is not used either: the rest becomes black, like air. White
corners around a circle or a polygon would change the network's output for the anatomy between them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pydicom import Dataset

from xray.images.dicom.values import get_numbers, get_values
from xray.images.radiograph import MIN_SIDE, Box

MAX_COORDINATE = 1 << 20
"""Coordinates of at least this many pixels count as damaged."""
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shutter:
    """A DICOM file's display shutter: the visible part of its image.

    Attributes:
        open_HW: whether each pixel is shown.
        content: the bounding box of the visible pixels.
    """

    open_HW: BoolArray
    content: Box


def read_shutter(header: Dataset, shape: tuple[int, int], pixel_aspect: float) -> Shutter | None:
    """Read the display shutter of a DICOM image of `shape` (H, W); None if there is no usable shutter.

    A shape whose tags are missing, or that would cover the whole image, is ignored. If none is left, the whole image is
    shown, as by a viewer without shutters.
    """
    open_HW = np.ones(shape, bool)
    for name in dict.fromkeys(str(each).strip() for each in get_values(header, "ShutterShape")):
        read = SHAPES.get(name)
        inside_HW = read(header, shape, pixel_aspect) if read else None
        if inside_HW is not None and _bounding_box(inside_HW) is not None:
            open_HW &= inside_HW
    content = _bounding_box(open_HW)
    if content is None or open_HW.all():
        return None
    return Shutter(open_HW, content)


def _rectangle(header: Dataset, shape: tuple[int, int], _: float) -> BoolArray | None:
    """Draw a rectangle; its edges are the first and the last visible column and row, counted from 1."""
    edges = [
        _coordinates(header, f"Shutter{edge}Edge")
        for edge in ("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal")
    ]
    if any(len(edge) != 1 for edge in edges):
        return None
    left, right, upper, lower = (round(edge[0]) for edge in edges)
    inside_HW = np.zeros(shape, bool)
    inside_HW[max(upper - 1, 0) : max(lower, 0), max(left - 1, 0) : max(right, 0)] = True
    return inside_HW


def _circle(header: Dataset, shape: tuple[int, int], pixel_aspect: float) -> BoolArray | None:
    """Draw a circle; its radius is in columns, so it is an ellipse in pixels if the spacing of rows differs."""
    center, radius = _coordinates(header, "CenterOfCircularShutter"), _coordinates(header, "RadiusOfCircularShutter")
    if len(center) != 2 or len(radius) != 1 or radius[0] <= 0:
        return None
    down_H1 = (np.arange(1, shape[0] + 1)[:, None] - center[0]) * pixel_aspect
    across_1W = np.arange(1, shape[1] + 1)[None] - center[1]
    return np.asarray(down_H1**2 + across_1W**2 <= radius[0] ** 2)


def _polygon(header: Dataset, shape: tuple[int, int], _: float) -> BoolArray | None:
    """Draw a polygon; its vertices are pairs of a row and a column, counted from 1."""
    numbers = _coordinates(header, "VerticesOfThePolygonalShutter")
    if len(numbers) < 6 or len(numbers) % 2:
        return None
    corners_N2 = np.rint(np.reshape(numbers, (-1, 2)))[:, ::-1].astype(np.int32) - 1
    inside = Image.new("1", shape[::-1])
    ImageDraw.Draw(inside).polygon([(int(x), int(y)) for x, y in corners_N2], fill=1, outline=1)
    return np.array(inside)


SHAPES: dict[str, Callable[[Dataset, tuple[int, int], float], BoolArray | None]] = {
    "RECTANGULAR": _rectangle,
    "CIRCULAR": _circle,
    "POLYGONAL": _polygon,
}
"""The function that draws each shape (H, W), or returns None if its tags are missing or damaged."""


def _bounding_box(inside_HW: BoolArray) -> Box | None:
    """Return the bounding box of the pixels inside; None if a side is shorter than `MIN_SIDE`."""
    rows, columns = (np.flatnonzero(inside_HW.any(axis)) for axis in (1, 0))
    if len(rows) < MIN_SIDE or len(columns) < MIN_SIDE:
        return None
    return Box(int(rows[0]), int(columns[0]), int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1)


def _coordinates(header: Dataset, keyword: str) -> list[float]:
    """Return the numbers of a tag; empty if one of them cannot be a coordinate."""
    numbers = get_numbers(header, keyword)
    return numbers if all(abs(number) < MAX_COORDINATE for number in numbers) else []
