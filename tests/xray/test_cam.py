"""The picture is hottest where the evidence is."""

import numpy as np
import pytest

from tests.phantoms import draw_phantom
from xray.cam import cam_on_radiograph, render
from xray.image import Radiograph
from xray.preprocess import PreprocessSpec, locate

RADIOGRAPH = Radiograph(draw_phantom(seed=4, height=256, width=205))
PLACEMENT = locate(RADIOGRAPH, PreprocessSpec(size=192))


def planted(row: int, column: int) -> np.ndarray:
    cells = np.random.default_rng(0).normal(0, 0.1, (6, 6)).astype(np.float32)
    cells[row, column] = 2
    return cells


@pytest.mark.parametrize("cell", [(0, 2), (3, 3), (5, 1)])
def test_overlay_is_hottest_where_the_map_peaks(cell: tuple[int, int]) -> None:
    cam = cam_on_radiograph(planted(*cell), PLACEMENT)
    overlay = render(cam, RADIOGRAPH, "overlay", alpha=0.5).astype(int)
    added = np.abs(overlay - RADIOGRAPH.pixels[..., np.newaxis])
    redness = added[..., 0] - RADIOGRAPH.pixels / 255
    assert cam.evidence_HW.max() == pytest.approx(1)
    warm = overlay[..., 0] - overlay[..., 2]
    hottest = np.unravel_index(warm.argmax(), warm.shape)
    assert cam.evidence_HW[hottest] > 0.98
    assert redness.shape == cam.evidence_HW.shape


def test_gray_map_is_brightest_where_the_map_peaks() -> None:
    cam = cam_on_radiograph(planted(2, 2), PLACEMENT)
    assert render(cam, RADIOGRAPH, "map", alpha=1).argmax() == (255 * cam.evidence_HW).round().argmax()


def test_heatmap_colours_run_from_blue_to_red() -> None:
    cam = cam_on_radiograph(planted(2, 2), PLACEMENT)
    heatmap = render(cam, RADIOGRAPH, "heatmap", alpha=1)
    peak = np.unravel_index(cam.evidence_HW.argmax(), cam.evidence_HW.shape)
    coldest = np.unravel_index(cam.evidence_HW.argmin(), cam.evidence_HW.shape)
    assert heatmap[peak][0] > 240
    assert heatmap[peak][2] == 0
    assert heatmap[coldest][2] > heatmap[coldest][0]


def test_flat_map_leaves_the_radiograph_untouched() -> None:
    cam = cam_on_radiograph(np.full((6, 6), 0.3, np.float32), PLACEMENT)
    overlay = render(cam, RADIOGRAPH, "overlay", alpha=1)
    assert (overlay == RADIOGRAPH.pixels[..., np.newaxis]).all()
