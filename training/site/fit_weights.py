"""Chooses a change of a classifier's weights that predicts a site's further studies better, if there is one.

Legend: N studies, C weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.model_selection import StratifiedGroupKFold

from training.export.calibrate import FloatArray, TargetArray, fit_calibration

FOLDS = 10
"""Number of folds of patients, to choose the penalty and for logits of studies that a fit has not seen. With few folds,
those fits would have fewer studies and thus less skill than the result, to which their calibration is applied."""
PENALTIES = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
"""Penalties to choose from: the weight of the squared length of the change beside the mean loss of a study, if the
gradients have a mean squared length of 1."""


@dataclass(frozen=True)
class LinearStudies:
    """A site's studies, whose logits are linear in the change of the classifier's weights.

    Attributes:
        logits_N: logits of the old weights.
        gradients_NC: gradient of each logit by the weights.
        patients_N: the patient of each study.
    """

    logits_N: FloatArray
    gradients_NC: FloatArray
    targets_N: TargetArray
    patients_N: npt.NDArray[np.str_]

    def rows(self, chosen_N: npt.NDArray[np.bool_]) -> "LinearStudies":
        """Return only the chosen studies of the site."""
        return LinearStudies(
            self.logits_N[chosen_N], self.gradients_NC[chosen_N], self.targets_N[chosen_N], self.patients_N[chosen_N]
        )


@dataclass(frozen=True)
class WeightChange:
    """A change of a classifier's weights and bias, which leaves the mean logit of the studies of its fit as it was.

    Attributes:
        weights_C: change of the weights.
        bias: change of the bias.
    """

    weights_C: FloatArray
    bias: float

    def logits(self, studies: LinearStudies) -> FloatArray:
        """Return the logits of studies with the changed weights, (N,)."""
        return np.asarray(studies.logits_N + studies.gradients_NC @ self.weights_C + self.bias)


@dataclass(frozen=True)
class ChosenChange:
    """The change of a classifier's weights that was chosen for a site.

    Attributes:
        change: fitted to all studies.
        fold_changes: for each fold, the change that was fitted without it.
        folds_N: fold of each study.
        penalty: one of `PENALTIES`.
        loss, old_loss: mean cross-entropy of held-out studies with the change, and without one.
    """

    change: WeightChange
    fold_changes: tuple[WeightChange, ...]
    folds_N: npt.NDArray[np.int64]
    penalty: float
    loss: float
    old_loss: float


def choose_change(studies: LinearStudies) -> ChosenChange | None:
    """Choose the change of weights with the smallest cross-entropy of held-out studies, by folds of patients.

    Returns:
        The change, or None if none is better than the old weights by more than one standard error of the difference.
    """
    folds_N = _folds(studies)
    old = [WeightChange(np.zeros(studies.gradients_NC.shape[1]), 0.0)] * FOLDS
    old_losses_N = _held_out_losses(studies, folds_N, old)
    found = {
        penalty: [fit_change(studies.rows(folds_N != fold), penalty) for fold in range(FOLDS)] for penalty in PENALTIES
    }
    losses = {penalty: _held_out_losses(studies, folds_N, changes) for penalty, changes in found.items()}
    best = min(PENALTIES, key=lambda penalty: losses[penalty].mean())
    gains_N = old_losses_N - losses[best]
    if gains_N.mean() <= gains_N.std() / np.sqrt(len(gains_N)):
        return None
    return ChosenChange(
        change=fit_change(studies, best),
        fold_changes=tuple(found[best]),
        folds_N=folds_N,
        penalty=best,
        loss=float(losses[best].mean()),
        old_loss=float(old_losses_N.mean()),
    )


def fit_change(studies: LinearStudies, penalty: float) -> WeightChange:
    """Fit a change of a classifier's weights by logistic regression with an L2 penalty on the change.

    The logits are on the scale of their calibration, so that the change does not have to correct it.
    """
    slope = fit_calibration(studies.logits_N, studies.targets_N).slope or 1.0
    means_C = studies.gradients_NC.mean(0)
    centered_NC = studies.gradients_NC - means_C
    scale = float(np.sqrt((centered_NC**2).sum(1).mean())) or 1.0
    scaled_NC, offsets_N = slope * centered_NC / scale, slope * studies.logits_N
    signs_N = 2 * studies.targets_N - 1

    def objective(values: FloatArray) -> tuple[float, FloatArray]:
        change_C, bias = values[:-1], values[-1]
        margins_N = signs_N * (offsets_N + scaled_NC @ change_C + bias)
        errors_N = -signs_N * expit(-margins_N) / len(signs_N)
        loss = np.logaddexp(0, -margins_N).mean() + penalty / 2 * (change_C @ change_C)
        return float(loss), np.append(scaled_NC.T @ errors_N + penalty * change_C, errors_N.sum())

    fitted = minimize(objective, np.zeros(len(means_C) + 1), jac=True, method="L-BFGS-B")
    weights_C = fitted.x[:-1] / scale
    return WeightChange(weights_C, -float(means_C @ weights_C))


def _folds(studies: LinearStudies) -> npt.NDArray[np.int64]:
    """Return the fold of each study, (N,); the studies of a patient have the same."""
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    folds_N = np.empty(len(studies.targets_N), np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(studies.logits_N, studies.targets_N, studies.patients_N)):
        folds_N[held_out] = fold
    return folds_N


def _held_out_losses(
    studies: LinearStudies, folds_N: npt.NDArray[np.int64], changes: Sequence[WeightChange]
) -> FloatArray:
    """Return each study's cross-entropy, (N,), if its logit is from the change that was fitted without its fold.

    The held-out logits of all folds are calibrated together, as those of the result will be.
    """
    logits_N = np.choose(folds_N, [change.logits(studies) for change in changes])
    calibration = fit_calibration(logits_N, studies.targets_N)
    calibrated_N = calibration.slope * logits_N + calibration.intercept
    return np.asarray(np.logaddexp(0, -(2 * studies.targets_N - 1) * calibrated_N))
