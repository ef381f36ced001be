"""The space of the training data's embeddings, which shows whether an input is like the training data.

Legend: N, B embeddings, D numbers of an embedding, K dimensions of the space.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from xray.errors import ArtifactError

EmbeddingArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class EmbeddingSpace:
    """The affine space with most of the variance of the training data's embeddings, and a limit on distances.

    Attributes:
        mean_D: mean of the training data's embeddings, float32.
        basis_DK: orthonormal directions in which the embeddings vary most, float32.
        limit: distance from the space beyond which an embedding is unlike the training data.
    """

    mean_D: EmbeddingArray
    basis_DK: EmbeddingArray
    limit: float

    def distance(self, embedding_D: EmbeddingArray) -> float:
        """Return an embedding's distance from the embedding space as a multiple of the limit."""
        embeddings_1D = np.asarray(embedding_D, np.float32)[np.newaxis]
        return float(residuals(embeddings_1D, self.mean_D, self.basis_DK)[0]) / self.limit


def residuals(embeddings_BD: FloatArray, mean_D: FloatArray, basis_DK: FloatArray) -> FloatArray:
    """Return the length of the component of each embedding outside the embedding space, (B,).

    It is large for inputs that are unlike the training data (Wang et al. 2022, arXiv 2203.10807).
    """
    centered_BD = embeddings_BD - mean_D
    inside_BK = centered_BD @ basis_DK
    return np.asarray(np.sqrt(np.maximum(0, (centered_BD**2).sum(1) - (inside_BK**2).sum(1))))


def principal_components(embeddings_ND: EmbeddingArray, dimension: int) -> tuple[DoubleArray, DoubleArray]:
    """Span an embedding space: return the embeddings' mean (D,) and `dimension` main directions (D, K).

    These are the directions of greatest variance, orthonormal.
    """
    mean_D = embeddings_ND.mean(0, dtype=np.float64)
    centered_ND = embeddings_ND - mean_D
    _, axes_DD = np.linalg.eigh(centered_ND.T @ centered_ND)
    return mean_D, axes_DD[:, ::-1][:, :dimension]


def write_space(file: Path, space: EmbeddingSpace) -> None:
    """Write an embedding space's arrays to a safetensors file; the limit is stored in the manifest."""
    save_file({"mean_D": np.ascontiguousarray(space.mean_D), "basis_DK": np.ascontiguousarray(space.basis_DK)}, file)


def read_space(file: Path, limit: float, dimension: int) -> EmbeddingSpace:
    """Read an embedding space from a file that `write_space` wrote.

    Args:
        dimension: D, the length of the network's embeddings.

    Raises:
        ArtifactError: the file has no space for embeddings of that length.
    """
    try:
        space = EmbeddingSpace(**load_file(file), limit=limit)
    except (SafetensorError, TypeError) as error:
        raise ArtifactError(f"{file} does not hold the space of a network's embeddings: {error}") from error
    if space.mean_D.shape != (dimension,) or space.basis_DK.shape[:1] != (dimension,):
        raise ArtifactError(f"{file} does not fit the network, whose embeddings have {dimension} numbers.")
    return space
