"""Projects embeddings to the vectors that a gallery searches.

Legend: B embeddings, D numbers of an embedding, K numbers of a vector.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from xray.errors import ArtifactError
from xray.gallery.vector_index import EmbeddingArray


@dataclass(frozen=True)
class Projection:
    """A gallery's projection: an affine map that was fitted to the gallery's entries; all arrays are float32.

    Attributes:
        mean_D: mean of their embeddings.
        basis_DK: orthonormal directions in which the embeddings vary most.
        mixing_KK: weights and rotates the coordinates, so that radiographs of one class are close to each other.
    """

    mean_D: EmbeddingArray
    basis_DK: EmbeddingArray
    mixing_KK: EmbeddingArray

    @property
    def dimension(self) -> int:
        """Return the length K of a vector that the projection yields."""
        return int(self.mixing_KK.shape[1])

    def project(self, embeddings_BD: EmbeddingArray) -> EmbeddingArray:
        """Project embeddings to the gallery's vectors, (B, K) float32 of length 1."""
        vectors_BK = (embeddings_BD - self.mean_D) @ self.basis_DK @ self.mixing_KK
        return np.asarray(vectors_BK / np.linalg.norm(vectors_BK, axis=1, keepdims=True))


def write_projection(file: Path, projection: Projection) -> None:
    """Save the projection of embeddings to a gallery's vectors, its arrays by name, as a safetensors file."""
    save_file({field.name: np.ascontiguousarray(getattr(projection, field.name)) for field in fields(Projection)}, file)


def read_projection(file: Path) -> Projection:
    """Read a gallery's projection from a file that `write_projection` wrote.

    Raises:
        ArtifactError: the file does not hold a projection.
    """
    try:
        return Projection(**load_file(file))
    except (SafetensorError, TypeError) as error:
        raise ArtifactError(f"{file} does not hold a gallery's projection: {error}") from error
