"""A box stays around the same anatomy: on the canvas, through augmentation, in a window, and in the map's cells."""

import numpy as np
import pytest

from training.dataset.annotations import INSIDE_BOX, Box, covered_cells, draw_boxes
from training.dataset.augment import augment, cut_window
from xray.images.preprocess import PreprocessSpec, preprocess
from xray.images.radiograph import PixelArray, Radiograph

SPEC = PreprocessSpec(size=128)
HEIGHT, WIDTH = 300, 200
FINDING = Box(left=0.25, top=0.6, width=0.1, height=0.05)
SEEDS = range(30)


@pytest.fixture(scope="module")
def marked() -> tuple[PixelArray, PixelArray]:
    """A canvas that is bright in the box and gray elsewhere, and its region."""
    pixels = np.full((HEIGHT, WIDTH), 60, np.uint8)
    rows = slice(int(FINDING.top * HEIGHT), int((FINDING.top + FINDING.height) * HEIGHT))
    columns = slice(int(FINDING.left * WIDTH), int((FINDING.left + FINDING.width) * WIDTH))
    pixels[rows, columns] = 250
    canvas, placement = preprocess(Radiograph(pixels), SPEC)
    return canvas, draw_boxes([FINDING], placement)


def center_of(mask: np.ndarray) -> np.ndarray:
    return np.asarray(np.argwhere(mask).mean(0))


def test_a_box_lies_on_the_canvas_where_its_anatomy_lies(marked: tuple[PixelArray, PixelArray]) -> None:
    canvas, region = marked
    assert region.shape == canvas.shape
    assert set(np.unique(region)) == {0, INSIDE_BOX}
    assert np.abs(center_of(region[0] > 0) - center_of(canvas[0] > 150)).max() < 1


def test_a_region_moves_with_its_canvas(marked: tuple[PixelArray, PixelArray]) -> None:
    for seed in SEEDS:
        canvas, region = augment(*marked, np.random.default_rng(seed))
        assert np.abs(center_of(region[0] > INSIDE_BOX / 2) - center_of(canvas[0] > 160)).max() < 1.5


def test_most_windows_show_the_finding_and_all_show_anatomy(marked: tuple[PixelArray, PixelArray]) -> None:
    shown = 0
    for seed in SEEDS:
        canvas, region = cut_window(*marked, 32, np.random.default_rng(seed))
        assert canvas.shape == region.shape == (1, 32, 32)
        assert canvas.any()
        shown += bool(region.any())
    assert shown >= len(SEEDS) / 2


def test_a_window_of_a_blank_canvas_is_cut_anywhere() -> None:
    blank = np.zeros((1, 64, 64), np.uint8)
    canvas, region = cut_window(blank, blank, 32, np.random.default_rng(0))
    assert canvas.shape == region.shape == (1, 32, 32)


def test_the_cell_that_holds_most_of_a_small_box_is_inside() -> None:
    region = np.zeros((1, 128, 128), np.uint8)
    region[0, 33:36, 70:73] = INSIDE_BOX
    assert np.argwhere(covered_cells(region, 8)).tolist() == [[2, 4]]


def test_no_cell_is_inside_without_a_box() -> None:
    assert not covered_cells(np.zeros((1, 128, 128), np.uint8), 8).any()
    assert not draw_boxes([], preprocess(Radiograph(np.full((9, 9), 60, np.uint8)), SPEC)[1]).any()


def test_the_cells_of_a_large_box_are_inside() -> None:
    region = np.zeros((1, 128, 128), np.uint8)
    region[0, 32:80, 0:48] = INSIDE_BOX
    expected = np.zeros((8, 8), bool)
    expected[2:5, 0:3] = True
    np.testing.assert_array_equal(covered_cells(region, 8), expected)
