"""An augmented canvas is another exposure of the same anatomy, and air in it stays air."""

import numpy as np
import pytest

from tests.phantoms import draw_phantom
from training.dataset.augment import augment
from xray.images.radiograph import PixelArray

SIZE = 64
DRAWS = range(30)


@pytest.fixture(scope="module")
def canvas() -> PixelArray:
    return draw_phantom(seed=3, height=SIZE, width=SIZE)[np.newaxis]


def augmented(canvas: PixelArray, seed: int) -> PixelArray:
    return augment(canvas, np.zeros_like(canvas), np.random.default_rng(seed))[0]


def test_a_canvas_comes_out_as_a_canvas(canvas: PixelArray) -> None:
    out = augmented(canvas, 0)
    assert (out.shape, out.dtype) == ((1, SIZE, SIZE), np.dtype(np.uint8))


def test_the_same_draw_gives_the_same_canvas_and_leaves_its_source_alone(canvas: PixelArray) -> None:
    before = canvas.copy()
    for seed in DRAWS:
        np.testing.assert_array_equal(augmented(canvas, seed), augmented(canvas, seed))
    np.testing.assert_array_equal(canvas, before)


def test_no_two_draws_are_alike(canvas: PixelArray) -> None:
    assert len({augmented(canvas, seed).tobytes() for seed in DRAWS}) == len(DRAWS)


def test_air_stays_air_and_what_comes_in_from_outside_is_air() -> None:
    air, white = np.zeros((1, SIZE, SIZE), np.uint8), np.full((1, SIZE, SIZE), 255, np.uint8)
    for seed in DRAWS:
        assert not augmented(air, seed).any()
        moved = augmented(white, seed)[0]
        # Between white and air lies only the interpolated seam, a pixel or two on each side of the canvas.
        assert np.isin(moved, (0, 255)).mean() > 1 - 4 * 2 / SIZE
        assert (moved[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4] == 255).all()
    assert any(augmented(white, seed)[0, 0, 0] == 0 for seed in DRAWS)


def test_gray_levels_keep_their_order() -> None:
    # Wide stripes, brighter from left to right; their centre row is read along the stripes' rising direction.
    stripes = np.repeat(np.arange(8, dtype=np.uint8) * 30 + 20, SIZE // 8)[np.newaxis, np.newaxis].repeat(SIZE, 1)
    for seed in DRAWS:
        row = augmented(stripes, seed)[0, SIZE // 2, SIZE // 4 : -SIZE // 4].astype(int)
        steps = np.diff(row)
        assert (steps >= 0).all() or (steps <= 0).all()


def test_left_and_right_are_exchanged_about_half_the_time() -> None:
    bright_left = np.zeros((1, SIZE, SIZE), np.uint8)
    bright_left[0, :, : SIZE // 2] = 200
    flipped = 0
    for seed in range(200):
        out = augmented(bright_left, seed)[0].astype(int)
        flipped += out[:, SIZE // 2 :].sum() > out[:, : SIZE // 2].sum()
    # Four standard deviations of 200 fair coins.
    assert abs(flipped - 100) < 4 * np.sqrt(50)
