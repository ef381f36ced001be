"""Saves and loads checkpoints: trained networks on disk.

A folder has `weights.safetensors`, `manifest.json` and, after it is fitted, `scope.safetensors`: the space of the
training data's embeddings.
"""

import dataclasses
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from xray.artifact import MANIFEST, atomic_folder, read_manifest, sha256, verify_checksums, write_manifest
from xray.errors import ArtifactError
from xray.images.preprocess import PreprocessSpec
from xray.network.backbone import BACKBONES
from xray.network.decision import Calibration, StudyPooling, UncertaintyBand
from xray.network.embedding_space import EmbeddingSpace, read_space, write_space
from xray.network.model import MapSpec, XrayNetwork
from xray.types import LABELS, Label

SCHEMA_VERSION = 3
"""Version of the manifest's fields. Version 2, which has no scope, can be read too."""
WEIGHTS = "weights.safetensors"
SCOPE = "scope.safetensors"
ID_LENGTH = 12
"""Number of hex digits of the weights' SHA-256 that are a checkpoint's ID."""
CODE_VERSION = "0.2.0"
"""Version of this program, as in pyproject.toml."""

StorageType = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class TrainingData:
    """The dataset that a checkpoint's network was trained on.

    Attributes:
        fingerprint: SHA-256 over the sorted dataset paths, targets and contents.
    """

    name: str
    studies: int
    images: int
    fingerprint: str


@dataclass(frozen=True)
class CheckpointManifest:
    """Everything in a checkpoint that serving needs in addition to the weights.

    Attributes:
        architecture: name of the backbone, one of `BACKBONES`.
        id: first 12 hex digits of the SHA-256 of the weights file; set when the checkpoint is saved.
        study_pooling: how the logits of a study's radiographs are combined.
        thresholds: probability at or above which a study is abnormal, by name; `default` always exists.
        uncertainty: the probabilities at which the decision is `uncertain`; None until fitted.
        scope_limit: distance from the training data's embeddings beyond which an image is out of scope; None until
            fitted.
        labels: names of the targets 0 and 1.
        metrics: metrics on the validation split at the epoch of this checkpoint.
        checksums: SHA-256 of each file of the folder, by name.
    """

    architecture: str
    preprocess: PreprocessSpec
    training_data: TrainingData
    map_spec: MapSpec = field(default_factory=MapSpec)
    metrics: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=lambda: {"default": 0.5})
    calibration: Calibration = field(default_factory=Calibration)
    uncertainty: UncertaintyBand | None = None
    scope_limit: float | None = None
    study_pooling: StudyPooling = "mean"
    labels: tuple[Label, Label] = LABELS
    id: str = ""
    code_version: str = CODE_VERSION
    schema_version: int = SCHEMA_VERSION
    checksums: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "default" not in self.thresholds or not all(0 <= each <= 1 for each in self.thresholds.values()):
            raise ValueError("thresholds need a 'default', and all must be from 0 to 1")
        if self.labels != LABELS:
            raise ValueError(f"labels must be {LABELS}")


@dataclass(frozen=True)
class Checkpoint:
    """A trained network, its manifest, and the space of its training data's embeddings; None until that is fitted."""

    model: XrayNetwork
    manifest: CheckpointManifest
    space: EmbeddingSpace | None = None


def save_checkpoint(folder: Path, checkpoint: Checkpoint, storage: StorageType = "float32") -> CheckpointManifest:
    """Write a checkpoint's folder atomically and return the manifest with its ID.

    Convolutions and the classifier are rounded to `storage`, which halves the file when it is a 16-bit type; the
    small vectors of the batch norms keep float32.
    """
    matrix_type: torch.dtype = getattr(torch, storage)
    tensors = {
        name: (tensor.to(matrix_type) if tensor.ndim > 1 else tensor).detach().cpu().contiguous()
        for name, tensor in checkpoint.model.state_dict().items()
    }
    with atomic_folder(folder) as partial:
        save_file(tensors, partial / WEIGHTS)
        digest = sha256(partial / WEIGHTS)
        manifest = dataclasses.replace(
            checkpoint.manifest, id=digest[:ID_LENGTH], scope_limit=None, checksums={WEIGHTS: digest}
        )
        if checkpoint.space is not None:
            manifest = _write_scope(partial, manifest, checkpoint.space)
        write_manifest(partial, manifest)
    return manifest


def save_scope(folder: Path, space: EmbeddingSpace) -> CheckpointManifest:
    """Save a checkpoint again with the space of its training data's embeddings, in place of any it had.

    All other files stay unchanged. Returns the new manifest.
    """
    with atomic_folder(folder) as partial:
        shutil.copytree(folder, partial, dirs_exist_ok=True)
        manifest = _write_scope(partial, read_checkpoint_manifest(folder), space)
        write_manifest(partial, manifest)
    return manifest


def read_checkpoint_manifest(folder: Path) -> CheckpointManifest:
    """Read the manifest of a checkpoint without its weights.

    Raises:
        ArtifactError: the manifest is missing, damaged, or of an unknown schema version.
    """
    return read_manifest(folder, CheckpointManifest, upgrades={2: _upgrade_from_version_2})


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read and verify a checkpoint folder; the network is in float32 on the CPU, in evaluation mode.

    Raises:
        ArtifactError: a file is missing or damaged, the architecture is unknown, or the weights do not fit it.
    """
    manifest = read_checkpoint_manifest(folder)
    if manifest.architecture not in BACKBONES:
        raise ArtifactError(
            f"{folder / MANIFEST} names the architecture {manifest.architecture!r}, which this version does not know; "
            f"use a checkpoint of {', '.join(BACKBONES)}."
        )
    verify_checksums(folder, {WEIGHTS: "", **manifest.checksums})
    if manifest.id != manifest.checksums[WEIGHTS][:ID_LENGTH]:
        raise ArtifactError(f"{folder}: the id in the manifest is not that of {WEIGHTS}.")
    model = XrayNetwork(manifest.architecture, manifest.preprocess, manifest.map_spec, manifest.study_pooling)
    try:
        model.load_state_dict({name: _widen(tensor) for name, tensor in load_file(folder / WEIGHTS).items()})
    except (RuntimeError, SafetensorError) as error:
        raise ArtifactError(f"{folder / WEIGHTS} does not hold a {manifest.architecture}: {error}") from error
    if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
        raise ArtifactError(f"{folder / WEIGHTS} holds numbers that are not finite; use another checkpoint.")
    return Checkpoint(model.eval(), manifest, _read_scope(folder, manifest, model.backbone.channels))


def _write_scope(folder: Path, manifest: CheckpointManifest, space: EmbeddingSpace) -> CheckpointManifest:
    write_space(folder / SCOPE, space)
    checksums = {**manifest.checksums, SCOPE: sha256(folder / SCOPE)}
    return dataclasses.replace(manifest, scope_limit=space.limit, checksums=checksums)


def _read_scope(folder: Path, manifest: CheckpointManifest, dimension: int) -> EmbeddingSpace | None:
    if (manifest.scope_limit is None) != (SCOPE not in manifest.checksums):
        raise ArtifactError(f"{folder}: its manifest names only one of {SCOPE} and scope_limit; copy the folder again.")
    return None if manifest.scope_limit is None else read_space(folder / SCOPE, manifest.scope_limit, dimension)


def _upgrade_from_version_2(stored: dict[str, Any]) -> dict[str, Any]:
    return {**stored, "schema_version": SCHEMA_VERSION, "scope_limit": None}


def _widen(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
