"""Computes metrics over studies, with bootstrap intervals over patients.

Legend: N rows of a sample, P patients, R resamples, G distinct probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn import metrics

RESAMPLES = 2000
"""Number of bootstrap resamples for an interval, enough for percentiles of 2.5 and 97.5."""
COVERAGE = 0.95
"""Share of bootstrap resamples between the ends of an interval."""
CALIBRATION_BINS = 15
"""Number of bins of the expected calibration error, as usual in the literature."""
FIGURES = ("auroc", "ap", "kappa", "f1", "sensitivity", "specificity", "accuracy")
"""Names of the metrics that depend on targets and probabilities; `ap` is the average precision."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A metric and the ends of its bootstrap interval; NaN if the sample does not define it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class CalibrationFigures:
    """The metrics of calibration: the difference between the probabilities and the observed frequencies.

    Attributes:
        error: see `calibration_error`.
        error_if_true: see `error_of_true_probabilities`.
        brier: see `brier_score`.
    """

    error: float
    error_if_true: Interval
    brier: float


@dataclass(frozen=True)
class Sample:
    """The studies for which metrics are computed, one row each.

    Attributes:
        patients: the patient of each study, because the bootstrap draws patients.
    """

    targets: npt.NDArray[np.int64]
    probabilities: FloatArray
    patients: npt.NDArray[np.str_]

    def rows(self, chosen: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "Sample":
        """Return the sample of only the chosen studies, to compute metrics for them."""
        return Sample(self.targets[chosen], self.probabilities[chosen], self.patients[chosen])


def auroc(targets: Sequence[int] | npt.NDArray[np.int64], probabilities: Sequence[float] | FloatArray) -> float:
    """Return the area under the receiver operating characteristic; NaN if there is only one class."""
    return float(metrics.roc_auc_score(targets, probabilities)) if len(np.unique(targets)) == 2 else float("nan")


def figures(sample: Sample, threshold: float) -> dict[str, float]:
    """Compute the metrics of one sample, all of `FIGURES`; NaN if a class is missing."""
    targets = sample.targets
    called = (sample.probabilities >= threshold).astype(np.int64)
    both = len(np.unique(targets)) == 2
    hits = called == targets
    return {
        "auroc": auroc(targets, sample.probabilities),
        "ap": float(metrics.average_precision_score(targets, sample.probabilities)) if both else float("nan"),
        "kappa": float(metrics.cohen_kappa_score(targets, called)) if both else float("nan"),
        "f1": float(metrics.f1_score(targets, called)) if both else float("nan"),
        "sensitivity": float(hits[targets == 1].mean()) if (targets == 1).any() else float("nan"),
        "specificity": float(hits[targets == 0].mean()) if (targets == 0).any() else float("nan"),
        "accuracy": float(hits.mean()),
    }


def calibration_error(targets: npt.NDArray[np.int64], probabilities: FloatArray) -> float:
    """Return the expected calibration error: the mean gap between probability and frequency.

    The mean is over `CALIBRATION_BINS` bins with equal numbers of studies (Nixon et al. 2019, arXiv 1904.01685).
    """
    order = np.argsort(probabilities, kind="stable")
    bins = [chosen for chosen in np.array_split(order, CALIBRATION_BINS) if len(chosen)]
    gaps = [abs(float(targets[chosen].mean() - probabilities[chosen].mean())) * len(chosen) for chosen in bins]
    return sum(gaps) / len(targets)


def calibration_error_with_interval(sample: Sample, resamples: int = RESAMPLES) -> Interval:
    """Return a sample's calibration error, with the percentile interval of a bootstrap over patients.

    In a small sample, chance alone adds to the error, and in a resample once more: both ends tend to be too high.
    """
    patients, owner = np.unique(sample.patients, return_inverse=True)
    drawn = (
        sample.rows(np.repeat(np.arange(len(owner)), counts[owner])) for counts in _draws(len(patients), resamples)
    )
    errors_R = np.array([calibration_error(each.targets, each.probabilities) for each in drawn])
    return _interval(calibration_error(sample.targets, sample.probabilities), errors_R)


def error_of_true_probabilities(probabilities: FloatArray, resamples: int = RESAMPLES) -> Interval:
    """Return the calibration error of a sample of this size if every probability is true: mean and interval.

    The targets are drawn from the probabilities (consistency resampling, Bröcker and Smith 2007).
    """
    drawn_RN = np.random.default_rng(0).random((resamples, len(probabilities))) < probabilities
    errors_R = np.array([calibration_error(targets, probabilities) for targets in drawn_RN.astype(np.int64)])
    return _interval(float(errors_R.mean()), errors_R)


def brier_score(targets: npt.NDArray[np.int64], probabilities: FloatArray) -> float:
    """Return the mean squared difference between probability and target (Brier 1950)."""
    return float(((probabilities - targets) ** 2).mean())


def calibration_of(sample: Sample, resamples: int = RESAMPLES) -> CalibrationFigures:
    """Compute the metrics of a sample's calibration: its calibration error and Brier score."""
    return CalibrationFigures(
        calibration_error(sample.targets, sample.probabilities),
        error_of_true_probabilities(sample.probabilities, resamples),
        brier_score(sample.targets, sample.probabilities),
    )


def mean_with_interval(values: FloatArray, patients: npt.NDArray[np.str_], resamples: int = RESAMPLES) -> Interval:
    """Return the mean of a metric's values and its percentile bootstrap interval, resampling patients."""
    _, owner = np.unique(patients, return_inverse=True)
    counts_RP = _draws(owner.max() + 1, resamples)
    sums_P, sizes_P = np.bincount(owner, values), np.bincount(owner)
    return _interval(float(values.mean()), (counts_RP @ sums_P) / (counts_RP @ sizes_P))


def auroc_difference(first: Sample, second: Sample, resamples: int = RESAMPLES) -> Interval:
    """Compute the difference of a metric, the second sample's AUROC minus the first's, with its bootstrap interval.

    Both samples are of the same studies, and the bootstrap over their patients is paired.
    """
    patients, owner = np.unique(first.patients, return_inverse=True)
    counts_RN = _draws(len(patients), resamples)[:, owner].astype(np.float64)
    drawn = [resampled_figures(sample, 0.5, counts_RN)["auroc"] for sample in (first, second)]
    areas = [auroc(sample.targets, sample.probabilities) for sample in (first, second)]
    return _interval(areas[1] - areas[0], drawn[1] - drawn[0])


def figures_with_intervals(sample: Sample, threshold: float, resamples: int = RESAMPLES) -> dict[str, Interval]:
    """Compute every metric with the percentile interval of a bootstrap over patients (Efron 1979).

    Patients are drawn instead of studies, because studies of one patient are not independent. The draws are seeded.
    """
    patients, owner = np.unique(sample.patients, return_inverse=True)
    drawn = resampled_figures(sample, threshold, _draws(len(patients), resamples)[:, owner].astype(np.float64))
    return {name: _interval(value, drawn[name]) for name, value in figures(sample, threshold).items()}


def _draws(patients: int, resamples: int) -> npt.NDArray[np.int64]:
    """Return how often each patient is drawn in each resample, (R, P); seeded."""
    return np.random.default_rng(0).multinomial(patients, np.full(patients, 1 / patients), size=resamples)


def resampled_figures(sample: Sample, threshold: float, counts_RN: FloatArray) -> dict[str, FloatArray]:
    """Compute the metrics of R resamples at once, all of `FIGURES`, (R,) each; equal to `figures` on repeated rows.

    Args:
        counts_RN: how often each of the N rows is in each of the R resamples.
    """
    order = np.argsort(-sample.probabilities, kind="stable")
    falling, targets = sample.probabilities[order], sample.targets[order]
    counts_RN = counts_RN[:, order]
    ends = np.flatnonzero(
        np.append(np.diff(falling) != 0, True)
    )  # equal probabilities get the same label at any threshold
    true_RG = np.cumsum(counts_RN * targets, axis=1)[:, ends]
    false_RG = np.cumsum(counts_RN * (1 - targets), axis=1)[:, ends]
    called = int((falling >= threshold).sum())
    true, false = (counts_RN[:, :called] @ (targets[:called] == target) for target in (1, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return _ranking_figures(true_RG, false_RG) | _decision_figures(true, false, true_RG[:, -1], false_RG[:, -1])


def _ranking_figures(true_RG: FloatArray, false_RG: FloatArray) -> dict[str, FloatArray]:
    """Compute AUROC and AP from the counts of abnormal and normal rows at or above each of the G probabilities."""
    positives, negatives = true_RG[:, -1], false_RG[:, -1]
    new_true_RG, new_false_RG = (np.diff(counts, axis=1, prepend=0) for counts in (true_RG, false_RG))
    areas = (new_false_RG * (true_RG - new_true_RG / 2)).sum(1) / (positives * negatives)
    precision_RG = np.nan_to_num(true_RG / (true_RG + false_RG))  # 0 / 0 if no row is counted yet, which adds nothing
    precisions = (new_true_RG * precision_RG).sum(1) / positives
    return {"auroc": areas, "ap": np.where(negatives > 0, precisions, np.nan)}


def _decision_figures(
    true: FloatArray, false: FloatArray, positives: FloatArray, negatives: FloatArray
) -> dict[str, FloatArray]:
    """Compute the other metrics from the counts of abnormal and normal rows labeled abnormal, and of all; (R,) each."""
    total, called = positives + negatives, true + false
    agreement = (true + negatives - false) / total
    by_chance = (positives * called + negatives * (total - called)) / total**2
    both = (positives > 0) & (negatives > 0)
    return {
        "kappa": np.where(both, (agreement - by_chance) / (1 - by_chance), np.nan),
        "f1": np.where(both, 2 * true / (called + positives), np.nan),
        "sensitivity": true / positives,
        "specificity": (negatives - false) / negatives,
        "accuracy": agreement,
    }


def _interval(value: float, drawn: FloatArray) -> Interval:
    """Return the percentile interval, ignoring resamples that do not define the metric."""
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(value, float(low), float(high))
