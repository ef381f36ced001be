"""What the network says of a study's radiographs in, what is said of the study out: pooled, calibrated, decided.

    logits -> pool_views -> study logit -> Calibration -> probability -> threshold -> label
                                                                     '-> UncertaintyBand -> decision

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
    """Platt scaling (Platt 1999): probability = sigmoid(slope * logit + intercept); identity until fitted."""

    slope: float = 1.0
    intercept: float = 0.0

    def probability(self, logit: float) -> float:
        """Without overflow at either end."""
        return 0.5 * (1 + math.tanh((self.slope * logit + self.intercept) / 2))


@dataclass(frozen=True)
class UncertaintyBand:
    """Probabilities at which neither label may be left out, from class-conditional conformal prediction.

    Of studies like those it was fitted on, at most `error_rate` of either class are given the other's label, on
    average over calibration sets (Vovk 2012, arXiv 1209.2673).

    Attributes:
        abnormal_from: least probability at which `abnormal` may be true.
        normal_to: greatest probability at which `normal` may be true.
    """

    error_rate: float
    abnormal_from: float
    normal_to: float

    def decide(self, probability: float) -> Decision:
        """The one label that may be true; `uncertain` where both or neither may."""
        may_be_abnormal, may_be_normal = probability >= self.abnormal_from, probability <= self.normal_to
        if may_be_abnormal == may_be_normal:
            return "uncertain"
        return "abnormal" if may_be_abnormal else "normal"


def pool_views(logits_n: FloatArray, attentions_n: FloatArray, pooling: StudyPooling) -> tuple[float, FloatArray]:
    """The logit of a study, and how much each radiograph weighed in it (n,); the weights sum to 1.

    `mean` is the logit of the mean probability. `lse` is log-mean-exp: the study's odds are the mean of its
    radiographs' odds, so that one suspicious view decides. `attention` is the mean logit, weighed by what the network
    says of each view (Ilse et al. 2018, arXiv 1802.04712).
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
