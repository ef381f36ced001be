"""Reads and writes the arrays of a checkpoint's scope: the embedding space and the limb classifier.

Their limits are in the checkpoint's manifest.
"""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from xray.errors import ArtifactError
from xray.network.embedding_space import EmbeddingSpace
from xray.network.ood import LimbClassifier


def write_scope(file: Path, space: EmbeddingSpace, limb_classifier: LimbClassifier | None) -> None:
    """Write the arrays of a checkpoint's scope to a safetensors file."""
    arrays = {"mean_D": space.mean_D, "basis_DK": space.basis_DK}
    if limb_classifier is not None:
        arrays |= {"limb_D": limb_classifier.weights_D, "limb_bias_1": np.array([limb_classifier.bias], np.float32)}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, file)


def read_scope(
    file: Path, familiarity_limit: float, scope_limit: float | None, dimension: int
) -> tuple[EmbeddingSpace, LimbClassifier | None]:
    """Read a checkpoint's embedding space and its limb classifier, which `write_scope` wrote.

    Args:
        scope_limit: limit of the limb classifier; None if the file has no classifier.
        dimension: D, the length of the network's embeddings.

    Raises:
        ArtifactError: the file does not have these arrays for embeddings of that length.
    """
    try:
        arrays = load_file(file)
        space = EmbeddingSpace(arrays.pop("mean_D"), arrays.pop("basis_DK"), familiarity_limit)
        limb_classifier = None
        if scope_limit is not None:
            limb_classifier = LimbClassifier(arrays.pop("limb_D"), float(arrays.pop("limb_bias_1")[0]), scope_limit)
    except (SafetensorError, KeyError) as error:
        raise ArtifactError(f"{file} does not hold the scope of a checkpoint: {error}") from error
    if arrays:
        raise ArtifactError(f"{file} holds arrays that the manifest does not mention: {', '.join(arrays)}.")
    vectors = [space.mean_D, space.basis_DK[:, 0]] + ([limb_classifier.weights_D] if limb_classifier else [])
    if any(vector.shape != (dimension,) for vector in vectors):
        raise ArtifactError(f"{file} does not fit the network, whose embeddings have {dimension} numbers.")
    return space, limb_classifier
