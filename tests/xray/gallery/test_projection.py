"""A projection is the map that it is on paper, in a file too."""

from pathlib import Path

import numpy as np
import pytest

from xray.errors import ArtifactError
from xray.gallery.projection import Projection, read_projection, write_projection

D, K = 12, 4


@pytest.fixture(scope="module")
def projection() -> Projection:
    random = np.random.default_rng(0)
    basis, _ = np.linalg.qr(random.normal(size=(D, K)))
    parts = random.normal(size=D), basis, random.normal(size=(K, K))
    return Projection(*(part.astype(np.float32) for part in parts))


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(7, D)).astype(np.float32)


def test_vectors_are_projected_mixed_and_of_length_one(projection: Projection, embeddings: np.ndarray) -> None:
    mixed = (embeddings - projection.mean_D) @ projection.basis_DK @ projection.mixing_KK
    assert projection.project(embeddings) == pytest.approx(mixed / np.linalg.norm(mixed, axis=1, keepdims=True))
    assert projection.project(embeddings).dtype == np.float32
    assert projection.dimension == K


def test_what_is_read_is_what_was_written(projection: Projection, embeddings: np.ndarray, tmp_path: Path) -> None:
    write_projection(tmp_path / "projection.safetensors", projection)
    read = read_projection(tmp_path / "projection.safetensors")
    np.testing.assert_array_equal(read.project(embeddings), projection.project(embeddings))


def test_another_file_is_no_projection(tmp_path: Path) -> None:
    (tmp_path / "projection.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="does not hold a gallery's projection"):
        read_projection(tmp_path / "projection.safetensors")
