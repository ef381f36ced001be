"""A study's probability, its label and its decision follow from what is said of its radiographs."""

import numpy as np
import pytest

from xray.network.decision import Calibration, StudyPooling, UncertaintyBand, pool_views

LOGITS = np.array([-2.0, 0.5, 3.0])
ATTENTIONS = np.array([0.0, np.log(2), 0.0])
POOLINGS = ("mean", "lse", "attention")


def sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-values)))


def test_mean_is_the_logit_of_the_mean_probability() -> None:
    logit, weights = pool_views(LOGITS, ATTENTIONS, "mean")
    assert sigmoid(np.array(logit)) == pytest.approx(sigmoid(LOGITS).mean())
    assert weights == pytest.approx([1 / 3] * 3)


def test_lse_has_the_mean_of_the_odds_and_weighs_by_them() -> None:
    logit, weights = pool_views(LOGITS, ATTENTIONS, "lse")
    assert np.exp(logit) == pytest.approx(np.exp(LOGITS).mean())
    assert weights == pytest.approx(np.exp(LOGITS) / np.exp(LOGITS).sum())


def test_attention_weighs_by_what_the_network_says() -> None:
    logit, weights = pool_views(LOGITS, ATTENTIONS, "attention")
    assert weights == pytest.approx([0.25, 0.5, 0.25])
    assert logit == pytest.approx(weights @ LOGITS)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_study_of_equal_views_has_their_logit_and_certainty_stays_finite(pooling: StudyPooling) -> None:
    for logit in (-700.0, -1.5, 700.0):
        assert pool_views(np.full(4, logit), np.zeros(4), pooling)[0] == pytest.approx(logit)
    assert np.isfinite(pool_views(np.array([-700.0, 700.0]), np.zeros(2), pooling)[0])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_weights_sum_to_one_and_go_with_their_views(pooling: StudyPooling) -> None:
    logit, weights = pool_views(LOGITS, ATTENTIONS, pooling)
    turned, turned_weights = pool_views(LOGITS[::-1], ATTENTIONS[::-1], pooling)
    assert weights.sum() == pytest.approx(1)
    assert turned == pytest.approx(logit)
    assert turned_weights[::-1] == pytest.approx(weights)


def test_decision_is_the_one_label_that_may_be_true() -> None:
    overlapping, apart = UncertaintyBand(0.1, 0.2, 0.6), UncertaintyBand(0.1, 0.6, 0.2)
    assert [overlapping.decide(p) for p in (0.1, 0.2, 0.6, 0.7)] == ["normal", "uncertain", "uncertain", "abnormal"]
    assert [apart.decide(p) for p in (0.2, 0.3, 0.5, 0.6)] == ["normal", "uncertain", "uncertain", "abnormal"]


def test_calibration_is_a_line_in_the_logit() -> None:
    assert Calibration(2.0, -1.0).probability(0.5) == pytest.approx(0.5)
    assert Calibration(2.0, -1.0).probability(1.0) == pytest.approx(sigmoid(np.array(1.0)))
