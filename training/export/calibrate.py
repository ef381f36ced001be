"""A checkpoint and a split in, the same checkpoint with decisions that hold on studies like those out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.dataset.radiographs import read_radiographs
from training.evaluate.predictions import predict_all
from training.export.thresholds import fit_calibration, fit_uncertainty, sensitive_threshold, youden_threshold
from xray.artifact import write_manifest
from xray.engines.engine import DeviceChoice, PrecisionChoice, load_engine
from xray.errors import DatasetError, InputError
from xray.mura.overlap import require_disjoint
from xray.mura.studies import Study, read_mura, records_of
from xray.network.checkpoint import CheckpointManifest, load_checkpoint
from xray.predictor import Predictor

ERROR_RATE = 0.1


@dataclass(frozen=True)
class CalibrateOptions:
    """Fit calibration, thresholds and decisions on DATA/SPLIT and write them into the checkpoint's manifest."""

    checkpoint: Path
    """Checkpoint folder; its weights and its id stay as they are."""
    data: Path
    """Dataset folder in MURA layout."""
    split: str = "valid"
    """Studies that the network was not trained on."""
    error_rate: float = ERROR_RATE
    """Share of either class that a decision may get wrong; where it would be more, the decision is `uncertain`."""
    device: DeviceChoice = "auto"
    precision: PrecisionChoice = "auto"
    """The network's arithmetic on a CPU; `auto` is what the service takes on this machine."""
    allow_overlap: bool = False
    """Go on where patients of the split are in another split of the dataset too."""

    def __post_init__(self) -> None:
        if not 0 < self.error_rate < 0.5:
            raise InputError(f"--error-rate is {self.error_rate}; give a share above 0 and below 0.5.")


def calibrate(options: CalibrateOptions) -> CheckpointManifest:
    """Predict every study, fit, and write the manifest anew.

    Raises:
        ArtifactError: the checkpoint is damaged.
        DatasetError: images cannot be read, one class is missing, or another split has some of the patients.
    """
    studies = read_mura(options.data, options.split)
    require_disjoint(options.data, options.split, studies, options.allow_overlap)
    manifest = calibrated(options, studies)
    write_manifest(options.checkpoint, manifest)
    return manifest


def calibrated(options: CalibrateOptions, studies: Sequence[Study]) -> CheckpointManifest:
    """The checkpoint's manifest, with what the studies say of its logits."""
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
