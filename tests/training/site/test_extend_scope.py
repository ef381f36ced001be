"""After the scope was extended, a site's further radiographs are familiar, the old ones still are, and few others."""

import numpy as np
import pytest

from training.export.fit_scope import fit_space
from training.export.limb_classifier import LIMIT_RANGE
from training.site.extend_scope import extend_space, widen_limb_limit
from xray.network.embedding_space import EmbeddingArray, EmbeddingSpace
from xray.network.ood import LimbClassifier

COUNT, D = 1200, 200


def draw(seed: int, count: int = COUNT, site: bool = False) -> EmbeddingArray:
    """Embeddings that vary most in ten directions; those of the site also in three others, around another mean."""
    random = np.random.default_rng(seed)
    spread = np.where(np.arange(D) < 10, 1.0, 0.02)
    embeddings = random.normal(size=(count, D)) * spread + 3 * np.eye(D)[-1]
    if site:
        embeddings[:, 20:23] += random.normal(size=(count, 3)) * 0.5
        embeddings[:, 30] += 0.8
    return np.asarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), np.float32)


def studies(count: int) -> list[str]:
    return [f"study{number // 2}" for number in range(count)]


def share_familiar(space: EmbeddingSpace, embeddings: EmbeddingArray) -> float:
    return float(np.mean([space.familiarity(each) >= 1 for each in embeddings]))


@pytest.fixture(scope="module")
def space() -> EmbeddingSpace:
    return fit_space(draw(0), studies(COUNT))


def test_further_radiographs_of_the_site_are_familiar_and_the_old_ones_stay_so(space: EmbeddingSpace) -> None:
    extended = extend_space(space, draw(1, 300, site=True), studies(300))
    assert share_familiar(space, draw(2, site=True)) < 0.1
    assert share_familiar(extended, draw(2, site=True)) > 0.95
    old = draw(3)
    assert share_familiar(extended, old) >= share_familiar(space, old) > 0.95


def test_other_images_stay_unfamiliar(space: EmbeddingSpace) -> None:
    extended = extend_space(space, draw(1, 300, site=True), studies(300))
    others = np.random.default_rng(3).normal(size=(100, D))
    others = (others / np.linalg.norm(others, axis=1, keepdims=True)).astype(np.float32)
    assert share_familiar(extended, others) < 0.05


def test_no_more_directions_are_added_than_the_site_needs(space: EmbeddingSpace) -> None:
    extended = extend_space(space, draw(1, 300, site=True), studies(300))
    assert extended.basis_DK.shape[1] - space.basis_DK.shape[1] == 4  # its mean and its three directions
    assert extended.limit == space.limit
    identity = extended.basis_DK.T @ extended.basis_DK
    assert identity == pytest.approx(np.eye(len(identity)), abs=1e-4)


def test_space_in_which_the_site_is_familiar_already_is_kept(space: EmbeddingSpace) -> None:
    same = extend_space(space, draw(4, 300), studies(300))
    assert (same.limit, same.basis_DK.shape) == (space.limit, space.basis_DK.shape)


def test_limit_rises_if_no_direction_helps(space: EmbeddingSpace) -> None:
    """Each radiograph differs in its own way: that is no space, so the site's distance itself becomes the limit."""
    random = np.random.default_rng(7)
    noisy, further = (
        each + random.normal(0, 0.02, each.shape).astype(np.float32) for each in (draw(5, 300), draw(6, 300))
    )
    extended = extend_space(space, noisy, studies(300))
    assert extended.limit > space.limit
    assert share_familiar(extended, further) > 0.95
    assert share_familiar(extended, draw(3)) >= share_familiar(space, draw(3))


def test_limit_of_the_limb_classifier_moves_only_if_the_sites_limbs_would_be_refused() -> None:
    random = np.random.default_rng(0)
    limbs = random.normal(0, 1, (300, 8)).astype(np.float32)
    weights = np.eye(8, dtype=np.float32)[0]
    accepting, refusing = LimbClassifier(weights, -6.0, 0.5), LimbClassifier(weights, -1.0, 0.5)
    assert widen_limb_limit(accepting, limbs) == accepting
    widened = widen_limb_limit(refusing, limbs)
    assert np.mean([refusing.distance(each) > 1 for each in limbs]) > 0.1
    assert np.mean([widened.distance(each) > 1 for each in limbs]) < 0.01


def test_images_that_are_certainly_no_limbs_stay_out_of_scope() -> None:
    images = np.ones((100, 8), np.float32)
    certain = LimbClassifier(np.ones(8, np.float32), 0.0, 0.5)
    widened = widen_limb_limit(certain, images)
    assert widened.limit == LIMIT_RANGE[1]
    assert widened.distance(images[0]) > 1
