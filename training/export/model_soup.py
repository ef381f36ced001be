"""Checkpoints of one origin in, one network with the mean of their weights out."""

from dataclasses import dataclass
from pathlib import Path

from torch.optim.swa_utils import AveragedModel

from xray.errors import ArtifactError, InputError
from xray.network.checkpoint import Checkpoint, CheckpointManifest, StorageType, load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class AverageOptions:
    """Average the weights of checkpoints that were tuned from a common one; `calibrate` is to follow."""

    checkpoints: tuple[Path, ...]
    """Checkpoint folders, two at least; one that is named twice counts twice. The average reads radiographs, and makes
    the map a logit, as the first of them does."""
    out: Path
    """Checkpoint folder to write."""
    storage: StorageType = "float32"
    """How the weights are stored."""

    def __post_init__(self) -> None:
        if len(self.checkpoints) < 2:
            raise InputError("--checkpoints names fewer than two folders; give those to average.")


def average(options: AverageOptions) -> CheckpointManifest:
    """Write a model soup (Wortsman et al. 2022, arXiv 2203.05482): what several networks know at the price of one.

    The statistics of the batch norms are averaged like the weights. What was fitted to one of the networks, its
    calibration, thresholds and figures, is left out.

    Raises:
        ArtifactError: a checkpoint is damaged, or the networks are not alike.
    """
    first, *others = [load_checkpoint(folder) for folder in options.checkpoints]
    mean = AveragedModel(first.model, use_buffers=True)
    mean.update_parameters(first.model)
    for folder, other in zip(options.checkpoints[1:], others, strict=True):
        _require_alike(other.manifest, first.manifest, folder)
        mean.update_parameters(other.model)
    first.model.load_state_dict(mean.module.state_dict())
    manifest = CheckpointManifest(
        architecture=first.manifest.architecture,
        preprocess=first.manifest.preprocess,
        training_data=first.manifest.training_data,
        map_spec=first.manifest.map_spec,
        study_pooling=first.manifest.study_pooling,
    )
    return save_checkpoint(options.out, Checkpoint(first.model, manifest), options.storage)


def _require_alike(other: CheckpointManifest, first: CheckpointManifest, folder: Path) -> None:
    for name in ("architecture", "study_pooling", "training_data"):
        its, wanted = getattr(other, name), getattr(first, name)
        if its != wanted:
            raise ArtifactError(f"{folder} has the {name} {its}, the first checkpoint {wanted}; average what is alike.")
