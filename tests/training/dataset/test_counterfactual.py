"""Findings move with their masks, erased findings are gone, and everything else stays."""

import numpy as np
import pytest

from tests.phantoms import draw_phantom
from training.dataset.annotations import INSIDE_BOX
from training.dataset.counterfactual import (
    MAX_ERASED,
    Frame,
    counterfactual,
    erase,
    frames_of,
    move_patch,
    random_frame,
)
from xray.images.radiograph import PixelArray

SIZE = 160
FINDING = Frame(left=70, top=100, width=18, height=14)
View = tuple[PixelArray, PixelArray]


def normal(seed: int) -> PixelArray:
    return draw_phantom(seed, height=SIZE, width=SIZE)[np.newaxis]


def abnormal(seed: int, frame: Frame = FINDING) -> View:
    """A phantom with a bright cross in a frame, and the mask of the frame."""
    canvas, region = normal(seed), np.zeros((1, SIZE, SIZE), np.uint8)
    rows, columns = frame.pixels
    canvas[0, rows, columns] = 40
    canvas[0, rows, frame.left + frame.width // 2 - 2 : frame.left + frame.width // 2 + 2] = 255
    canvas[0, frame.top + frame.height // 2 - 2 : frame.top + frame.height // 2 + 2, columns] = 255
    region[0, rows, columns] = INSIDE_BOX
    return canvas, region


def contrast(canvas: PixelArray, mask: np.ndarray) -> float:
    return float(canvas[0][mask[0] > 0].std())


@pytest.fixture(params=range(6))
def random(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


def test_frames_are_those_of_the_connected_parts() -> None:
    second = Frame(left=10, top=20, width=5, height=7)
    _, region = abnormal(0)
    region[0][second.pixels] = INSIDE_BOX
    assert sorted(frames_of(region), key=lambda frame: frame.top) == [second, FINDING]
    assert frames_of(np.zeros_like(region)) == []


def test_moved_finding_lies_in_its_new_mask_and_the_rest_of_the_canvas_stays(random: np.random.Generator) -> None:
    canvas, donor = normal(1), abnormal(2)
    moved = move_patch(canvas, donor, FINDING, random)
    assert moved is not None
    changed, region = moved
    assert region.sum() == donor[1].sum()
    assert contrast(changed, region) > 1.3 * contrast(canvas, region)
    (frame,) = frames_of(region)
    far = np.ones((SIZE, SIZE), bool)
    far[max(0, frame.top - 20) : frame.top + frame.height + 20, max(0, frame.left - 20) : frame.left + 38] = False
    np.testing.assert_array_equal(changed[0][far], canvas[0][far])


def test_patch_without_a_finding_brings_no_mask(random: np.random.Generator) -> None:
    canvas, donor = normal(1), normal(2)
    moved = move_patch(canvas, (donor, np.zeros_like(donor)), random_frame(donor, FINDING, random), random)
    assert moved is not None
    assert not moved[1].any()
    assert not np.array_equal(moved[0], canvas)


def test_erased_finding_leaves_less_contrast_and_changes_nothing_far_away(random: np.random.Generator) -> None:
    canvas, region = abnormal(3)
    erased = erase(canvas, [FINDING], random)
    assert erased is not None
    assert contrast(erased, region) < 0.6 * contrast(canvas, region)
    np.testing.assert_array_equal(erased[0, : FINDING.top - 20], canvas[0, : FINDING.top - 20])


def test_finding_too_large_to_erase_is_left() -> None:
    large = Frame(10, 10, int(MAX_ERASED * SIZE) + 2, 20)
    assert erase(normal(0), [large], np.random.default_rng(0)) is None


def test_label_of_a_counterfactual_is_that_of_its_mask() -> None:
    outcomes = set()
    for seed in range(40):
        random = np.random.default_rng(seed)
        for view in (abnormal(seed), (normal(seed), np.zeros((1, SIZE, SIZE), np.uint8))):
            canvas, region = counterfactual(view, abnormal(seed + 1), normal(seed + 2), random)
            outcomes.add((bool(view[1].any()), bool(region.any())))
            assert canvas.shape == region.shape == (1, SIZE, SIZE)
    assert outcomes == {(True, False), (True, True), (False, True), (False, False)}


def test_same_draw_gives_the_same_counterfactual() -> None:
    first, again = (counterfactual(abnormal(0), abnormal(1), normal(2), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_air_and_frames_at_the_rim_are_no_error(random: np.random.Generator) -> None:
    air, rim = np.zeros((1, SIZE, SIZE), np.uint8), Frame(0, SIZE - 6, 6, 6)
    assert move_patch(air, abnormal(2, rim), rim, random) is not None
    assert erase(air, [rim], random) is not None
    assert random_frame(air, rim, random).width == rim.width
