"""Turns the logits of a study's radiographs into the study's probability, label and decision.

    logits -> pool_views -> study logit -> Calibration -> probability -> threshold -> label
                                                                     '-> UncertaintyBand -> decide -> decision
                                                            familiarity ----------------------'

Legend: n radiographs of the study.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from xray.types import Label

StudyPooling = Literal["mean", "lse", "attention"]
Decision = Label | Literal["uncertain"]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """A decision's calibration by Platt (1999): probability = sigmoid(slope * logit + intercept).

    It is the identity until it is fitted.
    """

    slope: float = 1.0
    intercept: float = 0.0

    def probability(self, logit: float) -> float:
        """Return the calibrated probability of a logit, from 0 to 1, on which the decision is based."""
        return 0.5 * (1 + math.tanh((self.slope * logit + self.intercept) / 2))


@dataclass(frozen=True)
class UncertaintyBand:
    """The probabilities at which a decision can exclude neither label: class-conditional conformal prediction.

    Of studies like those of the fit, at most the share `error_rate` of either class get the other class's label, on
    average over calibration sets (Vovk 2012, arXiv 1209.2673).

    Attributes:
        error_rate: maximum share of errors in either class, from 0 to 0.5.
        abnormal_from: smallest probability at which `abnormal` cannot be excluded.
        normal_to: largest probability at which `normal` cannot be excluded.
    """

    error_rate: float
    abnormal_from: float
    normal_to: float

    def decide(self, probability: float) -> Decision:
        """Return the only label that the band does not exclude; `uncertain` if it excludes both or neither."""
        may_be_abnormal = probability >= self.abnormal_from
        may_be_normal = probability <= self.normal_to
        if may_be_abnormal == may_be_normal:
            return "uncertain"
        return "abnormal" if may_be_abnormal else "normal"


def decide(
    probability: float, label: Label, band: UncertaintyBand | None, familiarity: float | None
) -> tuple[Decision, str | None]:
    """Return the decision for a study and, if it is `uncertain`, the reason as a sentence.

    Args:
        label: the label at the threshold, which is the decision if there is no band.
        familiarity: likeness of the least familiar radiograph to the training data; None if unknown.
    """
    if familiarity is not None and familiarity < 1:
        return "uncertain", (
            f"A radiograph is unlike those that the network was trained on (familiarity {familiarity:.2f}; 1 is the "
            "limit), so its probability has not been shown to mean anything."
        )
    if band is None:
        return label, None
    decision = band.decide(probability)
    if decision != "uncertain":
        return decision, None
    return decision, f"At this probability, neither label can be given at an error rate of {band.error_rate:.0%}."


def pool_views(logits_n: FloatArray, attentions_n: FloatArray, pooling: StudyPooling) -> tuple[float, FloatArray]:
    """Pool a study's radiographs for its decision: return its logit and their weights (n,), which sum to 1.

    `mean` is the logit of the mean probability. `lse` is log-mean-exp: the study's odds are the mean of its
    radiographs' odds, so that one suspicious view decides. `attention` is the mean of the logits, weighted by the
    network's attention (Ilse et al. 2018, arXiv 1802.04712).

    Args:
        logits_n: the radiographs' logits before calibration.
        attentions_n: log weights up to a constant, used by `attention` only.
    """
    even_n = np.full(len(logits_n), 1 / len(logits_n))
    if pooling == "mean":
        return _log_mean(-np.logaddexp(0, -logits_n)) - _log_mean(-np.logaddexp(0, logits_n)), even_n
    if pooling == "lse":
        return _log_mean(logits_n), _softmax(logits_n)
    weights_n = _softmax(attentions_n)
    return float(weights_n @ logits_n), weights_n


def _log_mean(logs_n: FloatArray) -> float:
    return float(np.logaddexp.reduce(logs_n)) - math.log(len(logs_n))


def _softmax(values_n: FloatArray) -> FloatArray:
    return np.asarray(np.exp(values_n - np.logaddexp.reduce(values_n)))
