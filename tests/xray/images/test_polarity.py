"""Exactly one of an image and its negative is called a negative, and for real radiographs it is the right one."""

from pathlib import Path

import numpy as np
import pytest

from tests.phantoms import draw_phantom
from xray.images.decoding.decode import decode_radiograph
from xray.images.png_encoder import encode_png
from xray.images.polarity import is_negative


def share_of_negatives(dataset: Path, step: int) -> float:
    files = sorted((dataset / "valid").rglob("*.jpg"))[::step]
    return float(np.mean([decode_radiograph(file.read_bytes()).inverted for file in files]))


@pytest.mark.parametrize("shape", [(160, 128), (512, 410), (90, 200)])
def test_phantom_is_upright_and_its_negative_is_turned_round(shape: tuple[int, int]) -> None:
    for seed in range(10):
        phantom = draw_phantom(seed, fracture=seed % 2 == 0, height=shape[0], width=shape[1])
        assert not is_negative(phantom)
        assert (decode_radiograph(encode_png(255 - phantom)).pixels == phantom).all()


def test_bone_that_fills_the_image_is_upright_however_bright() -> None:
    bright_knee = np.full((120, 120), 235, np.uint8)
    bright_knee[:, :12] = bright_knee[:, -12:] = 120
    bright_knee[55:60] = 170
    assert not is_negative(bright_knee)
    assert is_negative(255 - bright_knee)


def test_image_and_its_negative_are_always_judged_differently() -> None:
    for seed in range(50):
        noise = np.random.default_rng(seed).integers(0, 256, (70, 50), np.uint8)
        assert is_negative(noise) != is_negative(255 - noise)


def test_limbs_in_air_are_upright(fracatlas: Path) -> None:
    assert share_of_negatives(fracatlas, step=2) == 0


def test_knees_without_air_are_upright_but_for_the_negatives_among_them(knee_oa: Path) -> None:
    assert share_of_negatives(knee_oa, step=4) < 0.05
