"""Fits a checkpoint's calibration, thresholds and uncertainty band on a split, and writes them into its manifest.

Legend: N studies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve

from training.dataset.radiographs import read_radiographs
from training.evaluate.predictions import predict_all
from xray.artifact import write_manifest
from xray.engines.base import DeviceChoice, PrecisionChoice
from xray.engines.registry import load_engine
from xray.errors import DatasetError, InputError
from xray.mura.overlap import require_disjoint
from xray.mura.studies import Study, read_mura, records_of
from xray.network.checkpoint import CheckpointManifest, load_checkpoint
from xray.network.decision import Calibration, UncertaintyBand
from xray.predictor import Predictor

FloatArray = npt.NDArray[np.float64]
TargetArray = npt.NDArray[np.int64]

ERROR_RATE = 0.1
"""Default of the share of errors in either class that the uncertainty band allows."""
SENSITIVITY = 0.95
"""Share of abnormal studies that the threshold `sensitive` finds; a usual requirement for screening."""


@dataclass(frozen=True)
class CalibrateOptions:
    """Fit calibration, thresholds and uncertainty on DATA/SPLIT and write them into the checkpoint's manifest."""

    checkpoint: Path
    """Checkpoint folder; its weights and its ID do not change."""
    data: Path
    """Dataset folder in MURA layout."""
    split: str = "valid"
    """Studies that the network was not trained on."""
    error_rate: float = ERROR_RATE
    """Maximum share of wrong decisions in either class; if there would be more, the decision is `uncertain`."""
    device: DeviceChoice = "auto"
    precision: PrecisionChoice = "auto"
    """Precision of the network on a CPU; `auto` is the one that the service uses on this machine."""
    allow_overlap: bool = False
    """Allow patients of the split in another split of the dataset."""

    def __post_init__(self) -> None:
        if not 0 < self.error_rate < 0.5:
            raise InputError(f"--error-rate is {self.error_rate}; give a share above 0 and below 0.5.")


def calibrate(options: CalibrateOptions) -> CheckpointManifest:
    """Calibrate a checkpoint: predict every study, fit, and write the manifest.

    Raises:
        ArtifactError: the checkpoint is damaged.
        DatasetError: images cannot be read, one class is missing, or another split has some of the patients.
    """
    studies = read_mura(options.data, options.split)
    require_disjoint(options.data, options.split, studies, options.allow_overlap)
    manifest = fit_manifest(options, studies)
    write_manifest(options.checkpoint, manifest)
    return manifest


def fit_manifest(options: CalibrateOptions, studies: Sequence[Study]) -> CheckpointManifest:
    """Return the checkpoint's manifest with calibration, thresholds and uncertainty fitted to the studies.

    Raises:
        ArtifactError: the checkpoint is damaged.
        DatasetError: images cannot be read, or one class is missing.
    """
    targets_N = np.array([study.target for study in studies])
    if len(np.unique(targets_N)) < 2:
        raise DatasetError("The studies to calibrate on are of one class; normal and abnormal ones are needed.")
    checkpoint = load_checkpoint(options.checkpoint)
    radiographs = read_radiographs(records_of(studies))
    predictor = Predictor(checkpoint.manifest, load_engine(checkpoint, options.device, options.precision))
    logits_N = np.array([prediction.logit for prediction in predict_all(predictor, studies, radiographs)])
    calibration = fit_calibration(logits_N, targets_N)
    probabilities_N = np.array([calibration.probability(logit) for logit in logits_N])
    youden, sensitive = (fit(targets_N, probabilities_N) for fit in (youden_threshold, sensitive_threshold))
    return replace(
        checkpoint.manifest,
        calibration=calibration,
        thresholds={"default": youden, "youden": youden, "sensitive": sensitive},
        uncertainty=fit_uncertainty(targets_N, probabilities_N, options.error_rate),
    )


def fit_calibration(logits_N: FloatArray, targets_N: TargetArray) -> Calibration:
    """Fit a checkpoint's calibration: a logistic regression of the targets on the logits (Platt 1999).

    If the logits rank no better than chance, the slope is 0 and the probability is the share of abnormal studies.
    """
    fitted = LogisticRegression(C=np.inf).fit(logits_N[:, np.newaxis], targets_N)
    slope = float(fitted.coef_[0, 0])
    if slope > 0:
        return Calibration(slope, float(fitted.intercept_[0]))
    share = targets_N.mean()
    return Calibration(0.0, float(np.log(share / (1 - share))))


def youden_threshold(targets_N: TargetArray, probabilities_N: FloatArray) -> float:
    """Fit a checkpoint's default threshold, with the largest sensitivity + specificity (Youden 1950)."""
    false_rates, true_rates, thresholds = roc_curve(targets_N, probabilities_N)
    # scikit-learn's first threshold is infinite, at which no study is abnormal.
    return _lower_to_midpoint(float(thresholds[1:][np.argmax((true_rates - false_rates)[1:])]), probabilities_N)


def sensitive_threshold(targets_N: TargetArray, probabilities_N: FloatArray) -> float:
    """Fit a checkpoint's threshold `sensitive`, the largest that finds `SENSITIVITY` of the abnormal studies."""
    return _lower_to_midpoint(_quantile_below(probabilities_N[targets_N == 1], 1 - SENSITIVITY), probabilities_N)


def fit_uncertainty(targets_N: TargetArray, probabilities_N: FloatArray, error_rate: float) -> UncertaintyBand:
    """Fit a checkpoint's uncertainty band, where either label is possible, at an error rate that holds for each class.

    Split conformal prediction with one quantile per class (Vovk 2012, arXiv 1209.2673). If a class has too few studies
    for the error rate, the band does not exclude its label.
    """
    abnormal, normal = (np.sort(probabilities_N[targets_N == target]) for target in (1, 0))
    excluded = [int(error_rate * (len(group) + 1)) for group in (abnormal, normal)]
    return UncertaintyBand(
        error_rate,
        abnormal_from=_lower_to_midpoint(float(abnormal[excluded[0] - 1]), probabilities_N) if excluded[0] else 0.0,
        normal_to=1 - _lower_to_midpoint(1 - float(normal[-excluded[1]]), 1 - probabilities_N) if excluded[1] else 1.0,
    )


def _lower_to_midpoint(value: float, probabilities_N: FloatArray) -> float:
    """Return the midpoint of one of the probabilities and the next smaller one or 0.

    A study exactly on a threshold could get another label on a processor that rounds differently.
    """
    return (value + float(probabilities_N[probabilities_N < value].max(initial=0.0))) / 2


def _quantile_below(values: FloatArray, share: float) -> float:
    """Return the largest value such that at most the given share of the values is below it."""
    return float(np.sort(values)[int(share * len(values))])
