"""What is fitted to a few hundred studies of a site holds on its further studies."""

import numpy as np
import pytest

from tests.training.site.drawn import draw_logits, sigmoid
from training.evaluate.metrics import calibration_error
from training.export.calibrate import FloatArray, TargetArray, youden_threshold
from training.site.fit_decision import fit_decision
from xray.errors import DatasetError
from xray.images.preprocess import PreprocessSpec
from xray.network.checkpoint import CheckpointManifest, TrainingData

FITTED, FURTHER, SITES = 300, 20_000, 40
BEFORE = CheckpointManifest("densenet121", PreprocessSpec(), TrainingData("elsewhere", 0, 0, ""))


def calibrated(manifest: CheckpointManifest, logits: FloatArray) -> FloatArray:
    return sigmoid(manifest.calibration.slope * logits + manifest.calibration.intercept)


def sum_of_rates(targets: TargetArray, abnormal: np.ndarray) -> float:
    """Sensitivity + specificity."""
    return float(abnormal[targets == 1].mean() + (~abnormal)[targets == 0].mean())


@pytest.mark.parametrize(("share", "separation"), [(0.2, 2.0), (0.3, 1.5), (0.5, 3.0)])
def test_probabilities_and_default_threshold_hold_on_studies_that_were_not_used(
    share: float, separation: float
) -> None:
    logits, targets = draw_logits(10_000, FURTHER, share, separation)
    best = max(sum_of_rates(targets, logits >= cut) for cut in np.quantile(logits, np.linspace(0.01, 0.99, 99)))
    errors, losses = [], []
    for seed in range(SITES):
        manifest = fit_decision(BEFORE, *draw_logits(seed, FITTED, share, separation), error_rate=0.1)
        probabilities = calibrated(manifest, logits)
        errors.append(calibration_error(targets, probabilities))
        losses.append(best - sum_of_rates(targets, probabilities >= manifest.thresholds["default"]))
    # The share of abnormal studies among 300 is itself uncertain by 0.05, so that one site in twenty may have more.
    assert np.quantile(errors, 0.95) <= 0.05
    assert max(losses) <= 0.02


def test_default_threshold_differs_less_between_sites_than_the_best_one_of_their_own_studies() -> None:
    chosen, best = [], []
    for seed in range(SITES):
        logits, targets = draw_logits(seed, FITTED)
        manifest = fit_decision(BEFORE, logits, targets, error_rate=0.1)
        slope, intercept = manifest.calibration.slope, manifest.calibration.intercept
        share = manifest.thresholds["default"]
        chosen.append((np.log(share / (1 - share)) - intercept) / slope)
        best.append(youden_threshold(targets, logits))
    assert np.std(chosen) < 0.7 * np.std(best)


def test_sensitive_threshold_finds_its_share_of_further_abnormal_studies() -> None:
    further, labels = draw_logits(10_000, FURTHER)
    found = []
    for seed in range(SITES):
        manifest = fit_decision(BEFORE, *draw_logits(seed, FITTED), error_rate=0.1)
        found.append((calibrated(manifest, further[labels == 1]) >= manifest.thresholds["sensitive"]).mean())
    # The promise is about the mean over sites, and holds with little to spare.
    assert 0.95 <= np.mean(found) <= 0.97


def test_decisions_on_further_studies_are_wrong_at_most_at_the_stated_rate() -> None:
    further, labels = draw_logits(10_000, 2000)
    wrong: list[tuple[float, float]] = []
    for seed in range(SITES):
        manifest = fit_decision(BEFORE, *draw_logits(seed, FITTED), error_rate=0.1)
        assert manifest.uncertainty is not None
        decisions = np.array([manifest.uncertainty.decide(each) for each in calibrated(manifest, further)])
        wrong.append((np.mean(decisions[labels == 0] == "abnormal"), np.mean(decisions[labels == 1] == "normal")))
    assert (np.mean(wrong, axis=0) <= 0.1 + 4 * np.std(wrong, axis=0) / np.sqrt(SITES)).all()
    assert (np.mean(wrong, axis=0) > 0.05).all()


def test_logits_without_skill_are_refused() -> None:
    logits, targets = draw_logits(0, FITTED)
    with pytest.raises(DatasetError, match="no better than chance"):
        fit_decision(BEFORE, -logits, targets, error_rate=0.1)
