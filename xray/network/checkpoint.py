"""Saves and loads checkpoints: trained networks on disk.

A folder has `weights.safetensors`, `manifest.json` and, after they are fitted, `scope.safetensors`: the space of the
training data's embeddings, and the classifier that tells limbs from other images. A checkpoint that was adapted to a
site has `adapted_images.txt`, which tells whether an image was used for that.
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
from xray.network.embedding_space import EmbeddingSpace
from xray.network.model import MapSpec, XrayNetwork
from xray.network.ood import LimbClassifier
from xray.network.scope_file import read_scope, write_scope
from xray.types import LABELS, Label

SCHEMA_VERSION = 4
"""Version of the manifest's fields. Version 2, which has no scope, can be read too, and 3, which only has a space."""
WEIGHTS = "weights.safetensors"
SCOPE = "scope.safetensors"
ADAPTED_IMAGES = "adapted_images.txt"
"""SHA-256 of each image that the checkpoint was adapted to, one a line."""
ID_LENGTH = 12
"""Number of hex digits of the weights' SHA-256 that are a checkpoint's ID."""
CODE_VERSION = "0.2.0"
"""Version of this program, as in pyproject.toml."""

StorageType = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class TrainingData:
    """A dataset that a checkpoint's network was trained on, or that the checkpoint was adapted to.

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
        adapted_on: data of the site that the checkpoint was adapted to, in its calibration, thresholds and scope and
            perhaps in its weights; None if it was not.
        thresholds: probability at or above which a study is abnormal, by name; `default` always exists.
        uncertainty: the probabilities at which the decision is `uncertain`; None until fitted.
        familiarity_limit: distance from the space of the training data's embeddings beyond which a limb is unfamiliar;
            None until fitted.
        scope_limit: probability of showing no limb beyond which an image is out of scope; None until fitted.
        labels: names of the targets 0 and 1.
        metrics: metrics on the validation split at the epoch of this checkpoint.
        checksums: SHA-256 of each file of the folder, by name.
    """

    architecture: str
    preprocess: PreprocessSpec
    training_data: TrainingData
    adapted_on: TrainingData | None = None
    map_spec: MapSpec = field(default_factory=MapSpec)
    metrics: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=lambda: {"default": 0.5})
    calibration: Calibration = field(default_factory=Calibration)
    uncertainty: UncertaintyBand | None = None
    familiarity_limit: float | None = None
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
    """A network and its manifest.

    Attributes:
        space: space of the training data's embeddings; None until fitted.
        limb_classifier: tells radiographs of limbs from other images; None until fitted.
        adapted_images: SHA-256 of the images that it was adapted to, in hexadecimal digits.
        folder: folder that it was loaded from, which may hold the network in int8 too; None if it was not loaded.
    """

    model: XrayNetwork
    manifest: CheckpointManifest
    space: EmbeddingSpace | None = None
    limb_classifier: LimbClassifier | None = None
    adapted_images: frozenset[str] = frozenset()
    folder: Path | None = None


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
            checkpoint.manifest,
            id=digest[:ID_LENGTH],
            familiarity_limit=None,
            scope_limit=None,
            checksums={WEIGHTS: digest},
        )
        manifest = _write_adapted_images(partial, manifest, checkpoint.adapted_images)
        if checkpoint.space is not None:
            manifest = _write_scope(partial, manifest, checkpoint.space, checkpoint.limb_classifier)
        write_manifest(partial, manifest)
    return manifest


def save_scope(
    folder: Path, space: EmbeddingSpace, limb_classifier: LimbClassifier | None = None
) -> CheckpointManifest:
    """Add the embedding space and the limb classifier to a checkpoint folder, in place of those that it has.

    The weights and the ID stay unchanged. Returns the new manifest.
    """
    with atomic_folder(folder) as partial:
        shutil.copytree(folder, partial, dirs_exist_ok=True)
        manifest = _write_scope(partial, read_checkpoint_manifest(folder), space, limb_classifier)
        write_manifest(partial, manifest)
    return manifest


def save_with_weights_of(source: Path, folder: Path, checkpoint: Checkpoint) -> CheckpointManifest:
    """Write a checkpoint's folder atomically, with the weights file of the folder `source` and so with its ID.

    All other files of `source` are copied too, such as a network in int8. Returns the manifest with its checksums.
    """
    with atomic_folder(folder) as partial:
        shutil.copytree(source, partial, dirs_exist_ok=True)
        manifest = _write_adapted_images(partial, checkpoint.manifest, checkpoint.adapted_images)
        if checkpoint.space is not None:
            manifest = _write_scope(partial, manifest, checkpoint.space, checkpoint.limb_classifier)
        write_manifest(partial, manifest)
    return manifest


def read_checkpoint_manifest(folder: Path) -> CheckpointManifest:
    """Read the manifest of a checkpoint without its weights.

    Raises:
        ArtifactError: the manifest is missing, damaged, or of an unknown schema version.
    """
    upgrades = {2: _upgrade_from_version_2, 3: _upgrade_from_version_3}
    return read_manifest(folder, CheckpointManifest, upgrades=upgrades)


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
    space, limb_classifier = _read_scope(folder, manifest, model.backbone.channels)
    listed = (folder / ADAPTED_IMAGES).read_text().split() if ADAPTED_IMAGES in manifest.checksums else ()
    return Checkpoint(model.eval(), manifest, space, limb_classifier, frozenset(listed), folder)


def _write_scope(
    folder: Path, manifest: CheckpointManifest, space: EmbeddingSpace, limb_classifier: LimbClassifier | None
) -> CheckpointManifest:
    write_scope(folder / SCOPE, space, limb_classifier)
    return dataclasses.replace(
        manifest,
        familiarity_limit=space.limit,
        scope_limit=limb_classifier.limit if limb_classifier else None,
        checksums={**manifest.checksums, SCOPE: sha256(folder / SCOPE)},
    )


def _write_adapted_images(folder: Path, manifest: CheckpointManifest, images: frozenset[str]) -> CheckpointManifest:
    if not images:
        return manifest
    (folder / ADAPTED_IMAGES).write_text("".join(f"{digest}\n" for digest in sorted(images)))
    checksums = {**manifest.checksums, ADAPTED_IMAGES: sha256(folder / ADAPTED_IMAGES)}
    return dataclasses.replace(manifest, checksums=checksums)


def _read_scope(
    folder: Path, manifest: CheckpointManifest, dimension: int
) -> tuple[EmbeddingSpace | None, LimbClassifier | None]:
    if (manifest.familiarity_limit is None) != (SCOPE not in manifest.checksums):
        raise ArtifactError(
            f"{folder}: its manifest names only one of {SCOPE} and familiarity_limit; copy the folder again."
        )
    if manifest.familiarity_limit is None:
        return None, None
    return read_scope(folder / SCOPE, manifest.familiarity_limit, manifest.scope_limit, dimension)


def _upgrade_from_version_2(stored: dict[str, Any]) -> dict[str, Any]:
    added = {"familiarity_limit": None, "scope_limit": None, "adapted_on": None}
    return {**stored, "schema_version": SCHEMA_VERSION, **added}


def _upgrade_from_version_3(stored: dict[str, Any]) -> dict[str, Any]:
    """Version 3 refused what was unlike the training data, by the limit that now tells what is unfamiliar."""
    added = {"familiarity_limit": stored.get("scope_limit"), "scope_limit": None, "adapted_on": None}
    return {**stored, "schema_version": SCHEMA_VERSION, **added}


def _widen(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
