"""Averages the weights of checkpoints that were fine-tuned from the same network (a model soup)."""

from dataclasses import dataclass
from pathlib import Path

from torch.optim.swa_utils import AveragedModel

from xray.errors import ArtifactError, InputError
from xray.network.checkpoint import Checkpoint, CheckpointManifest, StorageType, load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class AverageOptions:
    """Average the weights of checkpoints that were fine-tuned from a common one; run `calibrate` afterwards."""

    checkpoints: tuple[Path, ...]
    """Two or more checkpoint folders; one that is named twice counts twice. Preprocessing and map pooling are those of
    the first."""
    out: Path
    """Checkpoint folder to write."""
    storage: StorageType = "float32"
    """Number type of the stored weights."""

    def __post_init__(self) -> None:
        if len(self.checkpoints) < 2:
            raise InputError("--checkpoints names fewer than two folders; give at least two.")


def average(options: AverageOptions) -> CheckpointManifest:
    """Write a model soup (Wortsman et al. 2022, arXiv 2203.05482).

    The statistics of the batch norms are averaged like the weights. The result has no calibration, thresholds or
    metrics, because those were fitted to one of the networks.

    Raises:
        ArtifactError: a checkpoint is damaged, or the networks differ in architecture, pooling or training data.
    """
    first, *others = [load_checkpoint(folder) for folder in options.checkpoints]
    mean = AveragedModel(first.model, use_buffers=True)
    mean.update_parameters(first.model)
    for folder, other in zip(options.checkpoints[1:], others, strict=True):
        _require_same_network(other.manifest, first.manifest, folder)
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


def _require_same_network(other: CheckpointManifest, first: CheckpointManifest, folder: Path) -> None:
    for name in ("architecture", "study_pooling", "training_data"):
        its, wanted = getattr(other, name), getattr(first, name)
        if its != wanted:
            raise ArtifactError(f"{folder} has the {name} {its}, the first checkpoint {wanted}; both must be the same.")
