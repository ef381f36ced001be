"""Converts a `.tar` checkpoint of the original 2018 project; the only module that reads torch's own format."""

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.options import require_size
from xray.errors import ArtifactError
from xray.images.preprocess import PreprocessSpec
from xray.network.backbones.densenet import DenseNetName
from xray.network.checkpoint import Checkpoint, CheckpointManifest, TrainingData, save_checkpoint
from xray.network.model import XrayNetwork

OLD_LAYER_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
"""Layer names of torchvision before 0.3, which wrote `norm.1`; it now writes `norm1`."""
FEATURES = re.compile(r"(?:.*?\.)?(features\..+)")
"""Names of the features. A wrapper of the network adds a prefix to `features.`, usually DataParallel's `module.`."""
CLASSIFIER = re.compile(r"(?:.*\.)?(?:classifier|fc)(?:\.0)?\.(weight|bias)")
"""Names of the last layer."""
MAX_NAMED = 4
"""Maximum number of weights to name in an error message."""


@dataclass(frozen=True)
class ImportOptions:
    """Convert a .tar checkpoint of the original project to a checkpoint folder."""

    tar: Path
    """The .tar file. Only tensors are read, and no code in it is executed."""
    out: Path
    """Checkpoint folder to write."""
    architecture: DenseNetName = "densenet201"
    size: int = 224
    """Input side in pixels with which the weights were trained."""

    def __post_init__(self) -> None:
        require_size(self.size)


def import_original(options: ImportOptions) -> CheckpointManifest:
    """Import a checkpoint of the original project: read, rename and write its weights.

    Raises:
        ArtifactError: the file is not such a checkpoint, or its weights are of another architecture.
    """
    spec = PreprocessSpec(size=options.size)
    model = XrayNetwork(options.architecture, spec)
    weights = modern_weights(read_tensors(options.tar))
    try:
        outcome = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ArtifactError(f"{options.tar} does not hold a {options.architecture}: {error}") from error
    # Files from before torch 0.4 have no batch counts, which are not needed.
    missing = [name for name in outcome.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or outcome.unexpected_keys:
        raise ArtifactError(
            f"{options.tar} does not hold a {options.architecture}: "
            f"missing {missing[:MAX_NAMED]}, unknown {outcome.unexpected_keys[:MAX_NAMED]}."
        )
    manifest = CheckpointManifest(
        options.architecture, spec, TrainingData(f"imported from {options.tar.name}", 0, 0, "")
    )
    return save_checkpoint(options.out, Checkpoint(model, manifest))


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read the state dictionary in an original checkpoint's torch file, at the top level or under `state_dict`.

    Raises:
        ArtifactError: the file contains anything except tensors and plain values.
    """
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            stored = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError) as error:
        raise ArtifactError(f"{file} is not a torch checkpoint of plain tensors.") from error
    found = stored.get("state_dict", stored) if isinstance(stored, dict) else {}
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ArtifactError(f"{file} has no weights, neither at the top level nor under 'state_dict'.")
    return tensors


def modern_weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the original weights with the names of `XrayNetwork` and one logit; unknown names do not change."""
    weights = {}
    for name, tensor in tensors.items():
        wide = tensor.float() if tensor.is_floating_point() else tensor
        if classifier := CLASSIFIER.fullmatch(name):
            weights[f"classifier.{classifier[1]}"] = one_logit(wide)
        elif features := FEATURES.fullmatch(name):
            weights[OLD_LAYER_NAME.sub(r"\1\2.", features[1])] = wide
        else:
            weights[name] = wide
    return weights


def one_logit(classifier: Tensor) -> Tensor:
    """Return the original classifier with one logit; of two, abnormal minus normal, which has the same probability."""
    return classifier[1:] - classifier[:1] if classifier.shape[0] == 2 else classifier


def _numpy_scalars() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return the types of NumPy numbers in a file, such as the best metric; none of them executes code from it."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    kinds = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]
    return [(scalar, "numpy.core.multiarray.scalar"), scalar, np.dtype, *kinds]
