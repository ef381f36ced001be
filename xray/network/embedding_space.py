"""The space of the training data's embeddings, which shows whether a radiograph is like the training data.

Legend: N, B embeddings, D numbers of an embedding, K dimensions of the space.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

EmbeddingArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.floating]

MAX_FAMILIARITY = 10.0
"""Familiarity of an embedding in the space itself, whose distance is 0; training data has 1 to 3."""


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

    def familiarity(self, embedding_D: EmbeddingArray) -> float:
        """Return the limit divided by the embedding's distance from the space: 1 or more is like the training data.

        It is at most `MAX_FAMILIARITY`.
        """
        embeddings_1D = np.asarray(embedding_D, np.float32)[np.newaxis]
        distance = float(residuals(embeddings_1D, self.mean_D, self.basis_DK)[0])
        return MAX_FAMILIARITY if distance * MAX_FAMILIARITY <= self.limit else self.limit / distance


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
