"""Drawn answers of a checkpoint at a site, whose true sensitivity and calibration are known."""

import numpy as np

from training.evaluate.metrics import FloatArray, Sample
from training.export.calibrate import TargetArray
from training.site.figures import SiteSample


def draw_logits(seed: int, count: int, share: float = 0.3, separation: float = 2.0) -> tuple[FloatArray, TargetArray]:
    """Logits that overstate by a factor of two and are off by one, and their targets."""
    random = np.random.default_rng(seed)
    targets = (random.random(count) < share).astype(np.int64)
    log_odds = random.normal(np.where(targets == 1, separation / 2, -separation / 2), 1) * separation
    return 2 * (log_odds + np.log(share / (1 - share))) + 1, targets


def sigmoid(logits: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-logits)))


def site_sample(
    probabilities: FloatArray, targets: TargetArray, threshold: float = 0.5, patients: np.ndarray | None = None
) -> SiteSample:
    """A site whose studies are all in scope, familiar and decided."""
    count = len(targets)
    owners = np.arange(count).astype(str) if patients is None else patients
    decisions = np.where(probabilities >= threshold, "abnormal", "normal")
    sample = Sample(targets, probabilities, owners)
    return SiteSample(sample, threshold, decisions, np.ones(count, bool), np.full(count, 2.0))
