"""An embedding in, its vector in a gallery's own space out, and how much of it that space cannot hold.

Legend: B embeddings, D their numbers, K those of a vector.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from xray.errors import ArtifactError
from xray.gallery.scan import EmbeddingArray


@dataclass(frozen=True)
class Projection:
    """An affine map, fitted on the entries of a gallery; all in float32.

    Attributes:
        mean_D: of their embeddings.
        basis_DK: orthonormal, the directions in which they differ most.
        mixing_KK: weighs and turns the coordinates, so that like lies beside like.
    """

    mean_D: EmbeddingArray
    basis_DK: EmbeddingArray
    mixing_KK: EmbeddingArray

    @property
    def dimension(self) -> int:
        """K."""
        return int(self.mixing_KK.shape[1])

    def vectors(self, embeddings_BD: EmbeddingArray) -> EmbeddingArray:
        """The vectors (B, K), float32 of length 1."""
        vectors_BK = (embeddings_BD - self.mean_D) @ self.basis_DK @ self.mixing_KK
        return np.asarray(vectors_BK / np.linalg.norm(vectors_BK, axis=1, keepdims=True))

    def residuals(self, embeddings_BD: EmbeddingArray) -> EmbeddingArray:
        """Length of what of each embedding lies outside the space, (B,).

        It tells a network's input apart from what it was trained on (Wang et al. 2022, arXiv 2203.10807).
        """
        centred_BD = embeddings_BD - self.mean_D
        inside_BK = centred_BD @ self.basis_DK
        return np.asarray(np.sqrt(np.maximum(0, (centred_BD**2).sum(1) - (inside_BK**2).sum(1))))


def write_projection(file: Path, projection: Projection) -> None:
    save_file({field.name: np.ascontiguousarray(getattr(projection, field.name)) for field in fields(Projection)}, file)


def read_projection(file: Path) -> Projection:
    """Raises: ArtifactError: the file does not hold one."""
    try:
        return Projection(**load_file(file))
    except (SafetensorError, TypeError) as error:
        raise ArtifactError(f"{file} does not hold a gallery's projection: {error}") from error
