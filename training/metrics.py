"""Targets and probabilities of studies in, figures with intervals out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn import metrics

RESAMPLES = 2000
COVERAGE = 0.95
"""Share of bootstrap resamples between the ends of an interval."""
FIGURES = ("auroc", "ap", "kappa", "f1", "sensitivity", "specificity", "accuracy")

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure and the ends of its bootstrap interval; NaN where the sample does not define it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"


@dataclass(frozen=True)
class Sample:
    """What figures are computed on; rows are studies.

    Attributes:
        patients: whose study each row is; the bootstrap draws patients.
    """

    targets: npt.NDArray[np.int64]
    probabilities: FloatArray
    patients: npt.NDArray[np.str_]

    def rows(self, chosen: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "Sample":
        return Sample(self.targets[chosen], self.probabilities[chosen], self.patients[chosen])


def auroc(targets: Sequence[int] | npt.NDArray[np.int64], probabilities: Sequence[float] | FloatArray) -> float:
    """Area under the receiver operating characteristic; NaN when only one class is there."""
    return float(metrics.roc_auc_score(targets, probabilities)) if len(np.unique(targets)) == 2 else float("nan")


def youden_threshold(targets: Sequence[int], probabilities: Sequence[float]) -> float:
    """The probability at or above which sensitivity + specificity is largest (Youden 1950)."""
    false_rates, true_rates, thresholds = metrics.roc_curve(targets, probabilities)
    # The first of scikit-learn's thresholds is infinite: nothing is abnormal.
    return float(thresholds[1:][np.argmax((true_rates - false_rates)[1:])])


def figures(sample: Sample, threshold: float) -> dict[str, float]:
    """All of `FIGURES` on one sample; NaN where a class is missing."""
    targets, called = sample.targets, (sample.probabilities >= threshold).astype(np.int64)
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


def figures_with_intervals(sample: Sample, threshold: float, resamples: int = RESAMPLES) -> dict[str, Interval]:
    """Every figure with the percentile interval of a bootstrap over patients (Efron 1979).

    Patients are drawn, not studies: studies of one patient are not independent. The draws are seeded.
    """
    random = np.random.default_rng(0)
    _, owner = np.unique(sample.patients, return_inverse=True)
    rows_of = [np.flatnonzero(owner == patient) for patient in range(owner.max() + 1)]
    drawn = []
    for _ in range(resamples):
        chosen = np.concatenate([rows_of[patient] for patient in random.integers(len(rows_of), size=len(rows_of))])
        drawn.append(list(figures(sample.rows(chosen), threshold).values()))
    with np.errstate(all="ignore"):
        low, high = np.nanquantile(np.array(drawn), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0)
    values = figures(sample, threshold)
    return {name: Interval(values[name], float(low[i]), float(high[i])) for i, name in enumerate(values)}
