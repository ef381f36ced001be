"""What is fitted on some studies holds on others like them."""

import numpy as np
import pytest

from training.export.calibrate import (
    fit_calibration,
    fit_uncertainty,
    sensitive_threshold,
    youden_threshold,
)

ERROR_RATE = 0.1


def drawn(seed: int, count: int, share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Logits that overstate by a factor of two and are off by one, and their targets."""
    random = np.random.default_rng(seed)
    targets = (random.random(count) < share).astype(np.int64)
    log_odds = random.normal(np.where(targets == 1, 1.0, -1.0), np.sqrt(2)) + np.log(share / (1 - share))
    return 2 * log_odds + 1, targets


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)))


def test_calibrated_probabilities_are_the_frequencies_of_further_studies() -> None:
    calibration = fit_calibration(*drawn(0, 20_000))
    logits, targets = drawn(1, 20_000)
    probabilities = np.array([calibration.probability(logit) for logit in logits])
    assert (calibration.slope, calibration.intercept) == pytest.approx((0.5, -0.5), abs=0.05)
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        group = (probabilities >= low) & (probabilities < high)
        assert probabilities[group].mean() == pytest.approx(targets[group].mean(), abs=0.04)


def test_logits_that_rank_the_wrong_way_say_nothing_but_the_share() -> None:
    logits, targets = drawn(0, 2000)
    calibration = fit_calibration(-logits, targets)
    assert calibration.slope == 0
    assert calibration.probability(5.0) == pytest.approx(targets.mean())


def test_youden_threshold_separates_where_it_can() -> None:
    assert youden_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.7, 0.9])) == 0.5


def test_no_study_lies_on_a_threshold() -> None:
    logits, targets = drawn(3, 300)
    probabilities = sigmoid(logits)
    band = fit_uncertainty(targets, probabilities, ERROR_RATE)
    fitted = [fit(targets, probabilities) for fit in (youden_threshold, sensitive_threshold)]
    for edge in (*fitted, band.abnormal_from, band.normal_to):
        assert np.abs(probabilities - edge).min() > 1e-6


@pytest.mark.parametrize("count", [1, 19, 20, 40, 51])
def test_sensitive_threshold_keeps_its_share_of_the_abnormal_and_no_more_than_it_must(count: int) -> None:
    probabilities = np.random.default_rng(count).random(3 * count)
    targets = np.repeat([1, 0, 0], count)
    abnormal = probabilities[targets == 1]
    threshold = sensitive_threshold(targets, probabilities)
    assert (abnormal >= threshold).mean() >= 0.95
    least_kept = abnormal[abnormal >= threshold].min()
    assert (abnormal > least_kept).mean() < 0.95 or count < 20


def test_decisions_on_further_studies_are_wrong_at_most_at_the_stated_rate_in_either_class() -> None:
    wrong: dict[int, list[float]] = {0: [], 1: []}
    for seed in range(200):
        logits, targets = drawn(seed, 150, share=0.4)
        band = fit_uncertainty(targets, sigmoid(logits), ERROR_RATE)
        further, labels = drawn(10_000 + seed, 400, share=0.4)
        decisions = np.array([band.decide(probability) for probability in sigmoid(further)])
        wrong[0].append(float((decisions[labels == 0] == "abnormal").mean()))
        wrong[1].append(float((decisions[labels == 1] == "normal").mean()))
    for rates in wrong.values():
        # The promise is about the mean over calibration sets; four standard errors of it.
        assert np.mean(rates) <= ERROR_RATE + 4 * np.std(rates) / np.sqrt(len(rates))
        assert np.mean(rates) > ERROR_RATE / 2


def test_a_class_too_small_for_the_rate_is_never_excluded() -> None:
    band = fit_uncertainty(np.array([0] * 30 + [1] * 5), np.linspace(0, 1, 35), ERROR_RATE)
    assert band.abnormal_from == 0
    assert {band.decide(probability) for probability in (0.0, 0.3, 0.6)} == {"uncertain"}
