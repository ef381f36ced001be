"""A point of the radiograph is mapped to the canvas and back to the same place."""

import cv2
import numpy as np
import pytest

from tests.phantoms import draw_phantom
from xray.images.canny import canny
from xray.images.preprocess import Framing, PreprocessSpec, compute_placement, place, preprocess, restore
from xray.images.radiograph import Radiograph
from xray.images.resample import resample

SHAPES = [(512, 410), (410, 512), (97, 203), (64, 64), (31, 900), (2000, 40)]


def dark(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width), np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("framing", ["letterbox", "densest-edge"])
def test_input_is_a_square_of_the_specified_size(shape: tuple[int, int], framing: Framing) -> None:
    radiograph = Radiograph(draw_phantom(seed=1, height=shape[0], width=shape[1]))
    canvas = preprocess(radiograph, PreprocessSpec(size=96, framing=framing))[0]
    assert canvas.shape == (1, 96, 96)
    assert canvas.dtype == np.uint8


def test_letterbox_keeps_the_aspect_ratio() -> None:
    disc = dark(400, 200)
    cv2.circle(disc, (100, 200), 60, 255, -1)
    rows, columns = np.nonzero(preprocess(Radiograph(disc), PreprocessSpec(size=100))[0][0] > 127)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=1)


@pytest.mark.parametrize("shape", SHAPES[:4])
@pytest.mark.parametrize("framing", ["letterbox", "densest-edge"])
def test_spot_on_the_canvas_is_restored_to_its_place_on_the_radiograph(
    shape: tuple[int, int], framing: Framing
) -> None:
    pixels = draw_phantom(seed=2, height=shape[0], width=shape[1])
    placement = compute_placement(Radiograph(pixels), PreprocessSpec(size=128, framing=framing))
    spot = dark(*shape)
    # The center of what the canvas shows is seen under either framing.
    center = restore(np.ones((1, 1), np.float32), placement)
    row, column = (round(float(np.mean(axis))) for axis in np.nonzero(center))
    cv2.circle(spot, (column, row), max(2, min(shape) // 12), 255, -1)
    restored = restore(place(spot, placement).astype(np.float32), placement)
    found = [float(np.average(axis, weights=restored)) for axis in np.indices(shape)]
    assert found == pytest.approx([row, column], abs=max(2, max(shape) / 128))


def test_coarse_map_peaks_at_the_center_of_its_cell() -> None:
    placement = compute_placement(Radiograph(dark(300, 200)), PreprocessSpec(size=192))
    cells = np.zeros((6, 6), np.float32)
    cells[1, 3] = 1
    row, column = np.unravel_index(restore(cells, placement).argmax(), (300, 200))
    scale = 300 / 192
    assert (row, column) == pytest.approx(((1.5 * 32) * scale, (3.5 * 32 - 32) * scale), abs=2)


def test_densest_edge_window_shows_the_busiest_place() -> None:
    pixels = dark(300, 100)
    pixels[220:260:4, 20:80] = 255
    canvas = preprocess(Radiograph(pixels), PreprocessSpec(size=100, framing="densest-edge"))[0][0]
    assert (canvas > 127).sum() == (pixels > 127).sum()


def test_what_the_window_leaves_out_is_restored_as_nothing() -> None:
    pixels = dark(300, 100)
    pixels[220:260:4, 20:80] = 255
    placement = compute_placement(Radiograph(pixels), PreprocessSpec(size=100, framing="densest-edge"))
    restored = restore(np.ones((3, 3), np.float32), placement)
    assert restored[:150].max() == 0
    assert restored[220:257].min() == 1


@pytest.mark.parametrize(
    ("shape", "size"),
    [((2000, 2500), (256, 320)), ((512, 410), (320, 256)), ((373, 454), (263, 320)), ((640, 640), (320, 320))],
)
def test_shrinking_is_opencvs_area_average_within_a_gray_level(shape: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    expected = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(np.rint(resample(pixels, size)) - expected).max() <= 1


@pytest.mark.parametrize(("shape", "size"), [((100, 90), (320, 288)), ((17, 60), (91, 320)), ((1, 40), (8, 320))])
def test_growing_is_opencvs_bilinear_interpolation_within_a_gray_level(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    expected = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(np.rint(resample(pixels, size)) - expected).max() <= 1


def test_edges_are_opencvs() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 150), np.uint8)
    blurred = np.asarray(cv2.GaussianBlur(noise, (0, 0), 2), np.uint8)
    for pixels in (noise, blurred, draw_phantom(seed=1, height=300, width=240)):
        assert (canny(pixels, 50, 150) == (cv2.Canny(pixels, 50, 150) > 0)).all()
