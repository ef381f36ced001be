"""A canvas of another hospital looks different and shows the same anatomy in the same place."""

import numpy as np
import pytest

from tests.phantoms import draw_phantom
from training.dataset.appearance import STEPS, Step, vary_appearance
from xray.images.radiograph import PixelArray

SIZE = 160


@pytest.fixture(scope="module")
def canvas() -> PixelArray:
    return draw_phantom(seed=3, height=SIZE, width=SIZE)[np.newaxis]


@pytest.mark.parametrize("step", [step for step, _ in STEPS], ids=[step.__name__ for step, _ in STEPS])
def test_each_step_keeps_shape_and_type_and_leaves_its_input_alone(step: Step, canvas: PixelArray) -> None:
    before = canvas.copy()
    for seed in range(8):
        image = step(canvas[0], np.random.default_rng(seed))
        assert (image.shape, image.dtype) == ((SIZE, SIZE), np.dtype(np.uint8))
    np.testing.assert_array_equal(canvas, before)


def test_same_draw_gives_the_same_canvas_and_other_draws_give_others(canvas: PixelArray) -> None:
    looks = [vary_appearance(canvas, np.random.default_rng(seed)).tobytes() for seed in range(30)]
    again = [vary_appearance(canvas, np.random.default_rng(seed)).tobytes() for seed in range(30)]
    assert looks == again
    assert len(set(looks)) > 25


def test_anatomy_stays_where_it_is(canvas: PixelArray) -> None:
    """Bones correlate with themselves, except in the few images that are inverted or almost covered."""
    looks = [vary_appearance(canvas, np.random.default_rng(seed)) for seed in range(60)]
    likeness = [abs(np.corrcoef(canvas.ravel(), look.ravel())[0, 1]) for look in looks]
    moved = np.corrcoef(canvas.ravel(), np.roll(canvas, SIZE // 4, axis=2).ravel())[0, 1]
    assert np.median(likeness) > 0.9
    assert np.quantile(likeness, 0.1) > moved + 0.1


def test_tiny_canvas_is_no_error() -> None:
    tiny = draw_phantom(seed=1, height=32, width=32)[np.newaxis]
    assert all(vary_appearance(tiny, np.random.default_rng(seed)).shape == (1, 32, 32) for seed in range(40))
