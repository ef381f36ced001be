"""Logits and targets of studies in, the rules by which a checkpoint decides out.

Legend: N studies.
"""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve

from xray.network.decision import Calibration, UncertaintyBand

FloatArray = npt.NDArray[np.float64]
TargetArray = npt.NDArray[np.int64]

SENSITIVE = 0.95
"""Share of abnormal studies that the threshold `sensitive` still calls abnormal."""


def fit_calibration(logits_N: FloatArray, targets_N: TargetArray) -> Calibration:
    """The line through the logits that makes the targets likeliest (Platt 1999), never falling.

    Where the logits rank no better than chance it is flat: then the share of abnormal studies is all that is known.
    """
    fitted = LogisticRegression(C=np.inf).fit(logits_N[:, np.newaxis], targets_N)
    slope = float(fitted.coef_[0, 0])
    if slope > 0:
        return Calibration(slope, float(fitted.intercept_[0]))
    share = targets_N.mean()
    return Calibration(0.0, float(np.log(share / (1 - share))))


def youden_threshold(targets_N: TargetArray, probabilities_N: FloatArray) -> float:
    """The probability above which sensitivity + specificity is largest (Youden 1950)."""
    false_rates, true_rates, thresholds = roc_curve(targets_N, probabilities_N)
    # The first of scikit-learn's thresholds is infinite: nothing is abnormal.
    return _below(float(thresholds[1:][np.argmax((true_rates - false_rates)[1:])]), probabilities_N)


def sensitive_threshold(targets_N: TargetArray, probabilities_N: FloatArray) -> float:
    """The greatest probability above which lie `SENSITIVE` of the abnormal studies."""
    return _below(_kept_from_below(probabilities_N[targets_N == 1], 1 - SENSITIVE), probabilities_N)


def fit_uncertainty(targets_N: TargetArray, probabilities_N: FloatArray, error_rate: float) -> UncertaintyBand:
    """Where each label may be true, at an error rate that holds for either class.

    Split conformal prediction with one quantile for each class (Vovk 2012, arXiv 1209.2673): a further study of a class
    is as likely to fall into any of the gaps between those of the class that are at hand. Where they are too few for
    the rate, nothing is excluded.
    """
    abnormal, normal = (np.sort(probabilities_N[targets_N == target]) for target in (1, 0))
    left_out = [int(error_rate * (len(group) + 1)) for group in (abnormal, normal)]
    return UncertaintyBand(
        error_rate,
        abnormal_from=_below(float(abnormal[left_out[0] - 1]), probabilities_N) if left_out[0] else 0.0,
        normal_to=1 - _below(1 - float(normal[-left_out[1]]), 1 - probabilities_N) if left_out[1] else 1.0,
    )


def _below(value: float, probabilities_N: FloatArray) -> float:
    """Halfway from one of the probabilities to the next smaller one, or to 0.

    A study that lay on a threshold would be called otherwise by the next processor, whose last bits differ.
    """
    return (value + float(probabilities_N[probabilities_N < value].max(initial=0.0))) / 2


def _kept_from_below(values: FloatArray, share: float) -> float:
    """The greatest of the values below which at most a share of them lies."""
    return float(np.sort(values)[int(share * len(values))])
