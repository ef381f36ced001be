"""Radiographs like those of the fit are familiar and few others are; limbs are told from other images."""

from pathlib import Path
from shutil import copytree

import cv2
import numpy as np
import pytest

from tests.phantoms import draw_phantom, write_dataset
from training.export.fit_scope import MIN_RADIOGRAPHS, FitScopeOptions, fit_scope, fit_space
from training.export.limb_classifier import fit_limb_classifier
from xray.engines.registry import load_engine
from xray.errors import DatasetError
from xray.images.radiograph import Radiograph
from xray.network.checkpoint import load_checkpoint
from xray.predictor import Predictor

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
    assert np.mean([space.familiarity(each) < 1 for each in draw(1)]) < 0.04
    assert np.mean([space.familiarity(each) < 1 for each in others]) > 0.95


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
    assert manifest.familiarity_limit == pytest.approx(checkpoint.space.limit)
    assert (manifest.scope_limit, checkpoint.limb_classifier) == (None, None)
    assert manifest.id == load_checkpoint(tiny_checkpoint).manifest.id


@pytest.mark.slow
def test_limbs_are_told_from_other_images_that_were_given(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copytree(tiny_checkpoint, tmp_path / "checkpoint")
    data, others = write_dataset(tmp_path / "Phantoms", studies=MIN_RADIOGRAPHS), tmp_path / "noise"
    others.mkdir()
    random = np.random.default_rng(0)
    for number in range(10):
        cv2.imwrite(str(others / f"{number}.png"), random.integers(0, 256, (160, 128), np.uint8))
    (others / "torn.png").write_bytes(b"no image")
    fit_scope(FitScopeOptions(folder, data, others=(others,), device="cpu"))
    assert "1 of 11 other images cannot be read and are left out." in capsys.readouterr().out
    checkpoint = load_checkpoint(folder)
    predictor = Predictor.from_artifacts(checkpoint, load_engine(checkpoint, "cpu"))
    noise = random.integers(0, 256, (160, 128), np.uint8)
    limb, other = (predictor.predict([Radiograph(each)]).radiographs[0] for each in (draw_phantom(5), noise))
    assert predictor.scope(limb).in_scope
    assert predictor.scope(other).reason == "unlike a limb"
    assert not predictor.scope(other).in_scope


def test_few_limbs_are_beyond_the_limit_of_a_classifier_that_has_not_seen_them() -> None:
    random = np.random.default_rng(0)
    limbs, others = ((random.normal(mean, 1, (400, 8)) / 8).astype(np.float32) for mean in (0.0, 1.0))
    names = [str(number) for number in range(400)]
    classifier = fit_limb_classifier(limbs, names, others, names)
    fresh = (random.normal(0, 1, (1000, 8)) / 8).astype(np.float32)
    assert np.mean([classifier.distance(each) > 1 for each in fresh]) < 0.02
    assert np.mean([classifier.distance(each) > 1 for each in others]) > 0.3


def test_too_few_radiographs_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "Phantoms", studies=2)
    with pytest.raises(DatasetError, match=f"a scope needs at least {MIN_RADIOGRAPHS}"):
        fit_scope(FitScopeOptions(tiny_checkpoint, data, device="cpu"))
