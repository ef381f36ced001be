"""The picture is hottest where the evidence is."""

import cv2
import numpy as np
import pytest

from tests.phantoms import draw_phantom
from xray.images.preprocess import PreprocessSpec, compute_placement
from xray.images.radiograph import Radiograph
from xray.network.cam import HOTTEST_JET, Cam, cam_on_radiograph, find_regions, render

RADIOGRAPH = Radiograph(draw_phantom(seed=4, height=256, width=205))
PLACEMENT = compute_placement(RADIOGRAPH, PreprocessSpec(size=192))


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


def test_regions_frame_what_is_hot_strongest_first_and_only_a_few() -> None:
    evidence = np.zeros((60, 80), np.float32)
    for number, (top, left, value) in enumerate([(5, 10, 0.97), (40, 50, 1.0), (20, 70, 0.94), (50, 5, 0.92)]):
        evidence[top : top + 4 + number, left : left + 6] = value
    evidence[30, 30] = 0.8
    found = find_regions(Cam(evidence))
    assert [(each.left, each.top, each.width, each.height) for each in found] == [
        (50, 40, 6, 5),
        (10, 5, 6, 4),
        (70, 20, 6, 6),
    ]
    assert [each.evidence for each in found] == pytest.approx([1.0, 0.97, 0.94])


def test_flat_map_has_no_region() -> None:
    assert find_regions(Cam(np.zeros((60, 80), np.float32))) == []


def test_boxes_are_drawn_around_the_peak_and_leave_the_rest_as_it_was() -> None:
    evidence = np.zeros((60, 80), np.float32)
    evidence[20:30, 40:60] = 1
    radiograph = Radiograph(np.full((60, 80), 90, np.uint8))
    framed = render(Cam(evidence), radiograph, "boxes", alpha=0.5)
    assert framed.shape == (60, 80)
    changed = np.argwhere(framed != 90)
    assert (changed.min(0).tolist(), changed.max(0).tolist()) == ([20, 40], [29, 59])
    assert (framed[21:29, 41:59] == 90).all()
    assert (radiograph.pixels == 90).all()


def test_colours_are_those_of_opencvs_jet() -> None:
    evidence = np.tile(np.linspace(0, 1, HOTTEST_JET + 1, dtype=np.float32), (20, 1))
    index = np.tile(np.arange(HOTTEST_JET + 1, dtype=np.uint8), (20, 1))
    heatmap = render(Cam(evidence), Radiograph(index), "heatmap", alpha=1)
    assert (heatmap[..., ::-1] == cv2.applyColorMap(index, cv2.COLORMAP_JET)).all()


def test_overlay_mixes_radiograph_and_heatmap_by_the_evidence() -> None:
    cam = cam_on_radiograph(planted(2, 2), PLACEMENT)
    heatmap = render(cam, RADIOGRAPH, "heatmap", alpha=1).astype(float)
    opacity = 0.6 * cam.evidence_HW[..., np.newaxis]
    mixed = (1 - opacity) * RADIOGRAPH.pixels[..., np.newaxis] + opacity * heatmap
    assert np.abs(render(cam, RADIOGRAPH, "overlay", alpha=0.6) - mixed).max() <= 1.01
