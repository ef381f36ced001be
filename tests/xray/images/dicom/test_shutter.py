"""Pixels outside a display shutter are black, and those inside are the radiograph's content."""

from typing import Any

import numpy as np
import pytest

from tests.dicom_files import dicom
from tests.phantoms import draw_phantom
from xray.images.dicom.decode import decode_dicom
from xray.images.radiograph import Box

PHANTOM = draw_phantom(seed=5)
HEIGHT, WIDTH = PHANTOM.shape
ROWS, COLUMNS = np.ogrid[1 : HEIGHT + 1, 1 : WIDTH + 1]
WINDOW: dict[str, Any] = {"WindowCenter": 128, "WindowWidth": 256, "VOILUTFunction": "LINEAR_EXACT"}
RECTANGLE: dict[str, Any] = {
    "ShutterShape": "RECTANGULAR",
    "ShutterLeftVerticalEdge": 11,
    "ShutterRightVerticalEdge": WIDTH - 20,
    "ShutterUpperHorizontalEdge": 6,
    "ShutterLowerHorizontalEdge": HEIGHT - 8,
}
CIRCLE: dict[str, Any] = {
    "ShutterShape": "CIRCULAR",
    "CenterOfCircularShutter": [80, 60],
    "RadiusOfCircularShutter": 40,
}
TRIANGLE: dict[str, Any] = {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [10, 60, 120, 20, 120, 100]}
IN_RECTANGLE = (COLUMNS >= 11) & (COLUMNS <= WIDTH - 20) & (ROWS >= 6) & (ROWS <= HEIGHT - 8)
IN_CIRCLE = (ROWS - 80) ** 2 + (COLUMNS - 60) ** 2 <= 40**2


MOST_LINES_LOST = 3
"""Lines that may be cut off on each side: where a circle begins, a line is almost black and counts as a margin."""


def boxed(inside: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return Box(int(rows[0]), int(columns[0]), len(rows), len(columns))


def lines_lost(content: Box | None, box: Box) -> tuple[int, int, int, int]:
    """Lines of the box that are not content: above, below, left, right."""
    assert content is not None
    above, left = content.top - box.top, content.left - box.left
    return above, box.height - content.height - above, left, box.width - content.width - left


SHOWN: dict[str, tuple[dict[str, Any], np.ndarray]] = {
    "rectangle": (RECTANGLE, IN_RECTANGLE),
    "circle": (CIRCLE, IN_CIRCLE),
    "circle beyond the image": (
        {**CIRCLE, "RadiusOfCircularShutter": 70},
        (ROWS - 80) ** 2 + (COLUMNS - 60) ** 2 <= 70**2,
    ),
    "both": ({**CIRCLE, **RECTANGLE, "ShutterShape": ["RECTANGULAR", "CIRCULAR"]}, IN_RECTANGLE & IN_CIRCLE),
    "both, the other way round": (
        {**CIRCLE, **RECTANGLE, "ShutterShape": ["CIRCULAR", "RECTANGULAR"]},
        IN_RECTANGLE & IN_CIRCLE,
    ),
    "two edges within the image": (
        {**RECTANGLE, "ShutterLeftVerticalEdge": -50, "ShutterLowerHorizontalEdge": 9999},
        (COLUMNS <= WIDTH - 20) & (ROWS >= 6),
    ),
    "one of two that can be meant": (
        {**CIRCLE, "ShutterShape": ["RECTANGULAR", "CIRCULAR"], "ShutterLeftVerticalEdge": 5},
        IN_CIRCLE,
    ),
}


@pytest.mark.parametrize("case", SHOWN)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_what_the_shutter_hides_is_black_and_the_rest_is_content(case: str, photometric: str) -> None:
    tags, inside = SHOWN[case]
    stored = 255 - PHANTOM if photometric == "MONOCHROME1" else PHANTOM
    bare = decode_dicom(dicom(stored, PhotometricInterpretation=photometric, **WINDOW))
    radiograph = decode_dicom(dicom(stored, PhotometricInterpretation=photometric, **WINDOW, **tags))
    inside = np.broadcast_to(inside, PHANTOM.shape)
    assert (radiograph.pixels == np.where(inside, bare.pixels, 0)).all()
    lost = lines_lost(radiograph.content, boxed(inside))
    if "circle" in case or "both" in case or "one of two" in case:
        assert all(0 <= lines <= MOST_LINES_LOST for lines in lost)
    else:
        assert lost == (0, 0, 0, 0)


def test_polygon_hides_what_lies_beside_it() -> None:
    bare, radiograph = (decode_dicom(dicom(PHANTOM, **WINDOW, **tags)) for tags in ({}, TRIANGLE))
    assert radiograph.content == Box(9, 19, 111, 81)
    for row, column in ((100, 60), (118, 22), (118, 98), (12, 59)):
        assert radiograph.pixels[row, column] == bare.pixels[row, column] > 0
    for row, column in ((5, 59), (50, 21), (50, 99), (125, 60)):
        assert radiograph.pixels[row, column] == 0


@pytest.mark.parametrize("value", [0, 0x8080, 0xFFFF])
@pytest.mark.parametrize("shape", [RECTANGLE, CIRCLE, TRIANGLE], ids=("rectangle", "circle", "polygon"))
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_shutters_own_gray_has_no_part_in_what_is_judged(value: int, shape: dict[str, Any], photometric: str) -> None:
    tags = {"PhotometricInterpretation": photometric, **WINDOW, **shape}
    plain = decode_dicom(dicom(PHANTOM, **tags))
    gray = decode_dicom(dicom(PHANTOM, **tags, ShutterPresentationValue=value))
    assert (gray.pixels == plain.pixels).all()
    assert gray.content == plain.content


def test_circle_is_round_in_millimeters_where_pixels_are_not_square() -> None:
    radiograph = decode_dicom(dicom(PHANTOM, **WINDOW, **CIRCLE, ImagerPixelSpacing=[0.3, 0.15]))
    lost = lines_lost(radiograph.content, Box(59, 19, 41, 81))
    assert all(0 <= lines <= MOST_LINES_LOST for lines in lost)


NEVER_MEANT: dict[str, dict[str, Any]] = {
    "edges at zero": {**RECTANGLE, **{key: 0 for key in RECTANGLE if key.endswith("Edge")}},
    "edges the wrong way round": {**RECTANGLE, "ShutterLeftVerticalEdge": 100, "ShutterRightVerticalEdge": 20},
    "beside the image": {**RECTANGLE, "ShutterLeftVerticalEdge": 5000, "ShutterRightVerticalEdge": 6000},
    "a slit": {**RECTANGLE, "ShutterLeftVerticalEdge": 50, "ShutterRightVerticalEdge": 55},
    "an edge is missing": {key: value for key, value in RECTANGLE.items() if key != "ShutterUpperHorizontalEdge"},
    "no radius": {**CIRCLE, "RadiusOfCircularShutter": 0},
    "a circle beside the image": {**CIRCLE, "CenterOfCircularShutter": [900, 900]},
    "two corners": {**TRIANGLE, "VerticesOfThePolygonalShutter": [10, 60, 120, 20]},
    "half a corner": {**TRIANGLE, "VerticesOfThePolygonalShutter": [10, 60, 120, 20, 120, 100, 7]},
    "a line": {**TRIANGLE, "VerticesOfThePolygonalShutter": [10, 60, 60, 60, 110, 60]},
    "shapes apart from each other": {
        **CIRCLE,
        **RECTANGLE,
        "ShutterShape": ["RECTANGULAR", "CIRCULAR"],
        "ShutterLowerHorizontalEdge": 30,
    },
    "a bitmap": {"ShutterShape": "BITMAP"},
    "another word": {**RECTANGLE, "ShutterShape": "SQUARE"},
    "the whole image": {
        **RECTANGLE,
        "ShutterLeftVerticalEdge": 1,
        "ShutterRightVerticalEdge": WIDTH,
        "ShutterUpperHorizontalEdge": 1,
        "ShutterLowerHorizontalEdge": HEIGHT,
    },
}


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize("case", NEVER_MEANT)
def test_shutter_that_cannot_be_meant_hides_nothing(case: str) -> None:
    bare = decode_dicom(dicom(PHANTOM, **WINDOW))
    radiograph = decode_dicom(dicom(PHANTOM, **WINDOW, **NEVER_MEANT[case]))
    assert (radiograph.pixels == bare.pixels).all()
    assert radiograph.content == bare.content


def test_collimator_hides_nothing_as_in_viewers() -> None:
    tags = {key.replace("Shutter", "Collimator"): value for key, value in RECTANGLE.items()}
    radiograph = decode_dicom(dicom(PHANTOM, **WINDOW, **tags))
    assert (radiograph.pixels == decode_dicom(dicom(PHANTOM, **WINDOW)).pixels).all()


def test_white_border_behind_a_shutter_has_no_part_in_the_range() -> None:
    inside = np.broadcast_to(IN_RECTANGLE, PHANTOM.shape)
    bordered = np.where(inside, PHANTOM.astype(np.uint16) * 16, 65535)
    radiograph = decode_dicom(dicom(bordered, 16, **RECTANGLE))
    assert (radiograph.pixels == np.where(inside, PHANTOM, 0)).all()
