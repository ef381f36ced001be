"""The limit of the scope holds for radiographs like those that it was fitted on, and for few others."""

from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from tests.phantoms import write_dataset
from training.export.fit_scope import MIN_RADIOGRAPHS, FitScopeOptions, fit_scope, fit_space
from xray.errors import DatasetError
from xray.network.checkpoint import load_checkpoint

COUNT, D = 1200, 40


def draw(seed: int) -> np.ndarray:
    """Embeddings that vary most in ten directions."""
    random = np.random.default_rng(seed)
    embeddings = random.normal(size=(COUNT, D)) * np.where(np.arange(D) < 10, 1.0, 0.02) + 3 * np.eye(D)[-1]
    return np.asarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), np.float32)


def test_few_further_radiographs_and_most_other_images_are_beyond_the_limit() -> None:
    space = fit_space(draw(0), [f"study{number // 4}" for number in range(COUNT)])
    others = np.random.default_rng(3).normal(size=(100, D))
    others = (others / np.linalg.norm(others, axis=1, keepdims=True)).astype(np.float32)
    assert np.mean([space.distance(each) > 1 for each in draw(1)]) < 0.04
    assert np.mean([space.distance(each) > 1 for each in others]) > 0.95


def test_limit_is_that_of_studies_that_the_space_has_not_seen() -> None:
    """Copies within a study would make the limit too small, if they were held out one by one."""
    distinct = draw(0)[: COUNT // 4]
    copies = np.repeat(distinct, 4, axis=0)
    by_study = fit_space(copies, [f"study{number // 4}" for number in range(COUNT)])
    one_by_one = fit_space(copies, [f"study{number}" for number in range(COUNT)])
    assert by_study.limit > one_by_one.limit


@pytest.mark.slow
def test_scope_is_fitted_on_a_split_and_added_to_the_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = copytree(tiny_checkpoint, tmp_path / "checkpoint")
    data = write_dataset(tmp_path / "Phantoms", studies=MIN_RADIOGRAPHS)
    manifest = fit_scope(FitScopeOptions(folder, data, device="cpu"))
    checkpoint = load_checkpoint(folder)
    assert checkpoint.manifest == manifest
    assert checkpoint.space is not None
    assert manifest.scope_limit == pytest.approx(checkpoint.space.limit)
    assert manifest.id == load_checkpoint(tiny_checkpoint).manifest.id


def test_too_few_radiographs_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "Phantoms", studies=2)
    with pytest.raises(DatasetError, match=f"a scope needs at least {MIN_RADIOGRAPHS}"):
        fit_scope(FitScopeOptions(tiny_checkpoint, data, device="cpu"))
