"""One pass, and every number of the answer follows from it."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from tests.phantoms import draw_phantom
from xray.engines.registry import load_engine
from xray.images.radiograph import Radiograph
from xray.network.checkpoint import load_checkpoint
from xray.network.decision import Calibration
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
    lengths = [np.linalg.norm(each.embedding_D) for each in (study, *study.radiographs)]
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
