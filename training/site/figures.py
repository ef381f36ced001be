"""Measures what a checkpoint is worth on a site's studies: figures with 95 % intervals over patients.

Legend: N studies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.evaluate.metrics import (
    RESAMPLES,
    FloatArray,
    Interval,
    Sample,
    calibration_error_with_interval,
    figures_with_intervals,
    mean_with_interval,
)
from training.evaluate.predictions import sample_of
from training.site.sample_size import wilson_interval
from xray.mura.studies import Study
from xray.predictor import Predictor, StudyPrediction

BoolArray = npt.NDArray[np.bool_]

TITLES = {
    "auroc": "AUROC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "false_alarms": "false alarms, of the normal studies",
    "calibration_error": "expected calibration error",
    "in_scope": "share in scope",
    "familiar": "share familiar",
    "uncertain": "share uncertain",
    "wrong_decisions": "errors among the decided",
}
"""Figures of a site, and how they are called in its table. All but `in_scope` are of the studies in scope."""
NOTHING = Interval(float("nan"), float("nan"), float("nan"))
"""A figure that the studies do not define."""


@dataclass(frozen=True)
class SiteSample:
    """A site's studies with what the checkpoint says of them, one row each.

    Attributes:
        sample: targets, probabilities and patients.
        threshold: probability at or above which a study is called abnormal.
        decisions_N: `normal`, `abnormal` or `uncertain`.
        in_scope_N: whether every radiograph of the study is in scope, so that the service answers it.
        familiarity_N: smallest familiarity of the study's radiographs; NaN if the checkpoint has no limit.
    """

    sample: Sample
    threshold: float
    decisions_N: npt.NDArray[np.str_]
    in_scope_N: BoolArray
    familiarity_N: FloatArray

    @classmethod
    def from_predictions(
        cls, studies: Sequence[Study], predictions: Sequence[StudyPrediction], predictor: Predictor
    ) -> "SiteSample":
        """Collect the predictions of a site's studies."""
        in_scope = [all(predictor.scope(each).in_scope for each in study.radiographs) for study in predictions]
        familiarities = [np.nan if each.familiarity is None else each.familiarity for each in predictions]
        return cls(
            sample=sample_of(studies, predictions),
            threshold=predictor.find_threshold("default"),
            decisions_N=np.array([each.decision for each in predictions]),
            in_scope_N=np.array(in_scope),
            familiarity_N=np.array(familiarities),
        )

    @property
    def answered(self) -> Sample:
        """The site's studies that are in scope, for which the service gives an answer."""
        return self.sample.rows(self.in_scope_N)


@dataclass(frozen=True)
class SiteFigures:
    """The figures of a site.

    Attributes:
        studies, patients: numbers of all studies and their patients.
        answered: number of studies in scope.
        abnormal_patients, normal_patients: numbers of patients who have an abnormal, or a normal, study in scope.
        figures: intervals by name, one for each of `TITLES`; NaN where the studies do not define it.
    """

    studies: int
    patients: int
    answered: int
    abnormal_patients: int
    normal_patients: int
    figures: dict[str, Interval]


def measure_site(site: SiteSample, resamples: int = RESAMPLES) -> SiteFigures:
    """Measure the figures of a site.

    A study that is out of scope counts in the share in scope only, because the service refuses it.
    """
    answered = site.answered
    abnormal, normal = (len(np.unique(answered.patients[answered.targets == target])) for target in (1, 0))
    figures = dict.fromkeys(TITLES, NOTHING)
    figures["in_scope"] = _share(site.in_scope_N, site.sample.patients, resamples)
    if len(answered.targets):
        figures |= _accuracy(answered, site.threshold, abnormal, normal, resamples)
        figures |= _decisions(site, resamples)
    return SiteFigures(
        studies=len(site.sample.targets),
        patients=len(np.unique(site.sample.patients)),
        answered=len(answered.targets),
        abnormal_patients=abnormal,
        normal_patients=normal,
        figures=figures,
    )


def _accuracy(answered: Sample, threshold: float, abnormal: int, normal: int, resamples: int) -> dict[str, Interval]:
    """Return the figures that compare probabilities with targets."""
    measured = figures_with_intervals(answered, threshold, resamples)
    specificity = _widened(measured["specificity"], normal)
    return {
        "auroc": measured["auroc"],
        "sensitivity": _widened(measured["sensitivity"], abnormal),
        "specificity": specificity,
        "false_alarms": Interval(1 - specificity.value, 1 - specificity.high, 1 - specificity.low),
        "calibration_error": calibration_error_with_interval(answered, resamples),
    }


def _decisions(site: SiteSample, resamples: int) -> dict[str, Interval]:
    """Return the shares of familiar and uncertain studies, and of errors among those that are neither."""
    chosen = site.in_scope_N
    patients, decisions = site.sample.patients[chosen], site.decisions_N[chosen]
    familiarities = site.familiarity_N[chosen]
    decided = decisions != "uncertain"
    wrong = (decisions == "abnormal") != (site.sample.targets[chosen] == 1)
    return {
        "familiar": NOTHING if np.isnan(familiarities).all() else _share(familiarities >= 1, patients, resamples),
        "uncertain": _share(~decided, patients, resamples),
        "wrong_decisions": _share(wrong[decided], patients[decided], resamples),
    }


def _share(values_N: BoolArray, patients_N: npt.NDArray[np.str_], resamples: int) -> Interval:
    if not len(values_N):
        return NOTHING
    bootstrap = mean_with_interval(values_N.astype(np.float64), patients_N, resamples)
    return _widened(bootstrap, len(np.unique(patients_N)))


def _widened(share: Interval, patients: int) -> Interval:
    """Return a share's bootstrap interval, widened to Wilson's; without errors, the bootstrap's has no width at all."""
    if not patients:
        return share
    low, high = wilson_interval(share.value, patients)
    return Interval(share.value, min(low, share.low), max(high, share.high))
