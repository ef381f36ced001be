"""The display shutter of a DICOM file: what of its pixels is to be shown.

PS3.3 C.7.6.11. Shapes are rectangular, circular and polygonal, and what lies inside all of them is shown. The bitmap
shape belongs to presentation states. Collimator tags (0018,1700 and on) are not used: no viewer applies them, and real
files hold places that do not lie on the image.

Shutter Presentation Value, the gray that covers the rest, is not used either: the rest becomes black, as air is. White
corners around a circle or a polygon would change what the network says of the anatomy between them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pydicom import Dataset

from xray.images.dicom.values import numbers_of, values_of
from xray.images.radiograph import MIN_SIDE, Box

MAX_PLACE = 1 << 20
"""Pixels from the origin, beyond which no shutter is meant."""
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shutter:
    """What covers part of an image.

    Attributes:
        open_HW: whether a pixel is shown.
        content: the smallest box around the open pixels.
    """

    open_HW: BoolArray
    content: Box


def shutter_of(header: Dataset, shape: tuple[int, int], pixel_aspect: float) -> Shutter | None:
    """The shutter of an image of `shape`; None where there is none, or none that can be meant.

    A shape whose tags are missing, or that leaves nothing of the image, is passed over: the whole image is shown then,
    as by a viewer without shutters.
    """
    open_HW = np.ones(shape, bool)
    for name in dict.fromkeys(str(each).strip() for each in values_of(header, "ShutterShape")):
        read = SHAPES.get(name)
        inside_HW = read(header, shape, pixel_aspect) if read else None
        if inside_HW is not None and _box(inside_HW) is not None:
            open_HW &= inside_HW
    content = _box(open_HW)
    if content is None or open_HW.all():
        return None
    return Shutter(open_HW, content)


def _rectangle(header: Dataset, shape: tuple[int, int], _: float) -> BoolArray | None:
    """Its edges are the first and the last column and row that are shown, counted from 1."""
    edges = [
        _numbers(header, f"Shutter{edge}Edge")
        for edge in ("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal")
    ]
    if any(len(edge) != 1 for edge in edges):
        return None
    left, right, upper, lower = (round(edge[0]) for edge in edges)
    inside_HW = np.zeros(shape, bool)
    inside_HW[max(upper - 1, 0) : max(lower, 0), max(left - 1, 0) : max(right, 0)] = True
    return inside_HW


def _circle(header: Dataset, shape: tuple[int, int], pixel_aspect: float) -> BoolArray | None:
    """The radius counts columns; rows of another spacing make the circle an ellipse on the grid."""
    center, radius = _numbers(header, "CenterOfCircularShutter"), _numbers(header, "RadiusOfCircularShutter")
    if len(center) != 2 or len(radius) != 1 or radius[0] <= 0:
        return None
    down_H1 = (np.arange(1, shape[0] + 1)[:, None] - center[0]) * pixel_aspect
    across_1W = np.arange(1, shape[1] + 1)[None] - center[1]
    return np.asarray(down_H1**2 + across_1W**2 <= radius[0] ** 2)


def _polygon(header: Dataset, shape: tuple[int, int], _: float) -> BoolArray | None:
    """Its vertices are pairs of a row and a column, counted from 1."""
    numbers = _numbers(header, "VerticesOfThePolygonalShutter")
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


def _box(inside_HW: BoolArray) -> Box | None:
    """Around what is inside; None where a side is shorter than a radiograph's."""
    rows, columns = (np.flatnonzero(inside_HW.any(axis)) for axis in (1, 0))
    if len(rows) < MIN_SIDE or len(columns) < MIN_SIDE:
        return None
    return Box(int(rows[0]), int(columns[0]), int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1)


def _numbers(header: Dataset, keyword: str) -> list[float]:
    """The tag's numbers; none where one of them is no place in an image."""
    numbers = numbers_of(header, keyword)
    return numbers if all(abs(number) < MAX_PLACE for number in numbers) else []
