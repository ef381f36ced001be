"""Limbs are in scope; drawings, photographs and blanks are not."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.phantoms import draw_phantom
from xray.images.decoding.decode import decode_radiograph, read_radiograph
from xray.images.radiograph import Radiograph
from xray.network.ood import EXPLANATIONS, LimbClassifier, Scope, ScopeReason, appearance, measure_scope


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def gray_as_colour(seed: int) -> np.ndarray:
    return np.repeat(draw_phantom(seed)[..., np.newaxis], 3, axis=2)


def test_colour_is_out_of_scope_and_says_so() -> None:
    vivid = gray_as_colour(0)
    vivid[..., 0] = 255 - vivid[..., 0]
    scope = appearance(decode_radiograph(png(vivid)))
    assert (scope.in_scope, scope.reason) == (False, "in colour")


def test_gray_in_three_channels_a_tint_and_a_coloured_mark_are_no_colour() -> None:
    tinted, marked = gray_as_colour(0), gray_as_colour(0)
    tinted[..., 2] = np.minimum(255, tinted[..., 2].astype(int) + 25)
    marked[:20, :60] = (255, 0, 0)
    for pixels in (gray_as_colour(0), tinted):
        assert decode_radiograph(png(pixels)).color_share == 0
    assert 0 < decode_radiograph(png(marked)).color_share < 0.1


def test_a_drawing_of_two_grays_is_out_of_scope() -> None:
    board = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((32, 32))) * 200
    scope = appearance(Radiograph(board.astype(np.uint8)))
    assert (scope.in_scope, scope.reason) == (False, "few gray levels")


def test_size_hardly_changes_what_pixels_tell() -> None:
    small = draw_phantom(3, height=256, width=205)
    large = np.kron(small, np.ones((8, 8), np.uint8))
    assert appearance(Radiograph(large)).distance == pytest.approx(appearance(Radiograph(small)).distance, rel=0.02)


def test_real_limbs_look_like_radiographs(fracatlas: Path, knee_oa: Path) -> None:
    files = [*sorted(fracatlas.rglob("*.jpg"))[::20], *sorted(knee_oa.rglob("*.jpg"))[::60]]
    assert all(appearance(read_radiograph(file)).in_scope for file in files)


def test_margins_make_no_radiograph_poor_in_grays() -> None:
    phantom = draw_phantom(3, height=256, width=205)
    framed = np.pad(phantom, 140, constant_values=255)
    alone, inside = (appearance(decode_radiograph(png(pixels))).distance for pixels in (phantom, framed))
    assert inside == pytest.approx(alone, rel=0.02)


@pytest.mark.parametrize("reason", EXPLANATIONS)
def test_refusal_says_how_far_and_never_that_the_image_shows_no_limb(reason: ScopeReason) -> None:
    """The classifier may be wrong, so a refusal says what the image looks like."""
    explanation = Scope(1.25, reason).explanation
    assert "1.25 of the limit" in explanation
    assert "no limb" not in explanation


def test_distance_is_the_probability_of_no_limb_over_the_limit() -> None:
    classifier = LimbClassifier(np.array([2.0, -1.0], np.float32), bias=0.5, limit=0.25)
    embedding = np.array([0.6, 0.8], np.float32)
    assert classifier.distance(embedding) == pytest.approx(1 / (1 + np.exp(-0.9)) / 0.25)


def test_limb_and_other_image_are_told_apart_by_their_embeddings() -> None:
    classifier = LimbClassifier(np.array([50.0, -50.0], np.float32), bias=0.0, limit=0.9)
    phantom = Radiograph(draw_phantom(0))
    limb, other = (np.array(each, np.float32) for each in ((0.0, 1.0), (1.0, 0.0)))
    assert measure_scope(phantom, limb, classifier).in_scope
    assert measure_scope(phantom, other, classifier).reason == "unlike a limb"
    assert measure_scope(phantom, other, None).in_scope
