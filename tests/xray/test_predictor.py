"""One pass, and every number of the answer follows from it."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from tests.phantoms import draw_phantom
from xray.engines.registry import load_engine
from xray.gallery.entries import GalleryEntry
from xray.gallery.gallery import GalleryManifest
from xray.gallery.projection import Projection
from xray.gallery.storage import load_gallery, save_gallery
from xray.images.radiograph import Radiograph
from xray.network.checkpoint import load_checkpoint
from xray.network.decision import Calibration
from xray.network.embedding_space import EmbeddingSpace
from xray.network.ood import LimbClassifier
from xray.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint: Path) -> Predictor:
    checkpoint = load_checkpoint(tiny_checkpoint)
    return Predictor(checkpoint.manifest, load_engine(checkpoint, "cpu"))


@pytest.fixture(scope="module")
def views() -> list[Radiograph]:
    return [Radiograph(draw_phantom(seed)) for seed in range(3)]


def test_studys_probability_is_the_mean_of_its_radiographs(predictor: Predictor, views: list[Radiograph]) -> None:
    alone = [predictor.predict([view]).probability for view in views]
    assert predictor.predict(views).probability == pytest.approx(sum(alone) / 3, abs=1e-6)


def test_order_of_the_views_does_not_change_the_study(predictor: Predictor, views: list[Radiograph]) -> None:
    forward, backward = predictor.predict(views), predictor.predict(views[::-1])
    assert forward.probability == pytest.approx(backward.probability, abs=1e-6)
    assert forward.embedding_D == pytest.approx(backward.embedding_D, abs=1e-5)


def test_embeddings_of_radiographs_and_studies_have_length_one(predictor: Predictor, views: list[Radiograph]) -> None:
    study = predictor.predict(views)
    embeddings = [study.embedding_D, *(each.embedding_D for each in study.radiographs)]
    lengths = [np.linalg.norm(each) for each in embeddings]
    assert lengths == pytest.approx([1] * 4, abs=1e-5)


def test_calibration_moves_the_probability_and_not_the_logit(predictor: Predictor, views: list[Radiograph]) -> None:
    calibrated = dataclasses.replace(predictor.manifest, calibration=Calibration(slope=2.0, intercept=-1.0))
    plain = predictor.predict(views[:1]).radiographs[0]
    moved = Predictor(calibrated, predictor.engine).predict(views[:1]).radiographs[0]
    assert moved.logit == plain.logit
    assert plain.probability == pytest.approx(1 / (1 + math.exp(-plain.logit)))
    assert moved.probability == pytest.approx(1 / (1 + math.exp(1 - 2 * plain.logit)))


def test_threshold_of_the_manifest_decides_and_belongs_to_abnormal(
    predictor: Predictor, views: list[Radiograph]
) -> None:
    probability = predictor.predict(views).probability
    labels = []
    for threshold in (probability - 1e-6, probability, probability + 1e-6):
        manifest = dataclasses.replace(predictor.manifest, thresholds={"default": threshold})
        labels.append(Predictor(manifest, predictor.engine).predict(views).label)
    assert labels == ["abnormal", "abnormal", "normal"]


def test_extreme_logits_keep_their_probability_finite() -> None:
    assert (Calibration().probability(1e4), Calibration().probability(-1e4)) == (1.0, 0.0)


def test_space_of_the_checkpoint_comes_before_that_of_an_old_gallery(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    engine = load_engine(checkpoint, "cpu")
    dimension = checkpoint.model.backbone.channels
    mean, basis = np.zeros(dimension, np.float32), np.eye(dimension, 2, dtype=np.float32)
    entry = GalleryEntry("Set/train/XR_HAND/patient1/study1/image1.png", "XR_HAND", "patient1", "study1", "normal")
    manifest = GalleryManifest(checkpoint.manifest.id, "Set", "train", "all", 2, 1, scope_limit=0.25)
    save_gallery(
        tmp_path / "gallery",
        manifest,
        [entry],
        np.eye(1, 2, dtype=np.float32),
        projection=Projection(mean, basis, np.eye(2, dtype=np.float32)),
    )
    gallery = load_gallery(tmp_path / "gallery", checkpoint.manifest.id)
    without, old = Predictor.from_artifacts(checkpoint, engine), Predictor.from_artifacts(checkpoint, engine, gallery)
    own = EmbeddingSpace(mean, basis, 0.5)
    new = Predictor.from_artifacts(dataclasses.replace(checkpoint, space=own), engine, gallery)
    assert (without.space, new.space) == (None, own)
    assert old.space is not None
    assert old.space.limit == 0.25


def test_limb_unlike_the_training_data_is_in_scope_and_uncertain(predictor: Predictor, views: list[Radiograph]) -> None:
    dimension = len(predictor.predict(views[:1]).embedding_D)
    away = EmbeddingSpace(np.zeros(dimension, np.float32), np.zeros((dimension, 1), np.float32), limit=0.5)
    known, unfamiliar = predictor.predict(views), dataclasses.replace(predictor, space=away).predict(views)
    assert (known.familiar, known.familiarity, known.decision_reason) == (None, None, None)
    assert known.decision == known.label
    assert (unfamiliar.familiar, unfamiliar.decision) == (False, "uncertain")
    assert unfamiliar.familiarity == pytest.approx(0.5, abs=1e-4)  # an embedding has length 1
    assert unfamiliar.decision_reason is not None
    assert "unlike those that the network was trained on (familiarity 0.50" in unfamiliar.decision_reason
    assert (unfamiliar.probability, unfamiliar.label) == (known.probability, known.label)
    assert all(predictor.scope(each).in_scope for each in unfamiliar.radiographs)


def test_least_familiar_radiograph_decides_for_its_study(predictor: Predictor, views: list[Radiograph]) -> None:
    first, second = predictor.predict(views).radiographs[:2]
    pair = [dataclasses.replace(first, familiarity=1.5), dataclasses.replace(second, familiarity=0.75)]
    study = predictor.predict_study(pair)
    assert (study.familiarity, study.familiar, study.decision) == (0.75, False, "uncertain")


def test_image_that_shows_no_limb_is_out_of_scope(predictor: Predictor, views: list[Radiograph]) -> None:
    prediction = predictor.predict(views[:1]).radiographs[0]
    sure = LimbClassifier(np.zeros_like(prediction.embedding_D), bias=20.0, limit=0.8)
    scope = dataclasses.replace(predictor, limb_classifier=sure).scope(prediction)
    assert (scope.in_scope, scope.reason) == (False, "unlike a limb")
    assert scope.distance == pytest.approx(1.25)
