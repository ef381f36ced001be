"""The space of the training data's embeddings measures distance as geometry does, and travels with its checkpoint."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import STARTER
from xray.artifact import MANIFEST
from xray.errors import ArtifactError
from xray.network.checkpoint import (
    SCOPE,
    WEIGHTS,
    load_checkpoint,
    read_checkpoint_manifest,
    save_checkpoint,
    save_scope,
)
from xray.network.embedding_space import EmbeddingSpace, residuals

D, K = 1024, 4


@pytest.fixture(scope="module")
def space() -> EmbeddingSpace:
    random = np.random.default_rng(0)
    basis, _ = np.linalg.qr(random.normal(size=(D, K)))
    return EmbeddingSpace(random.normal(size=D).astype(np.float32), basis.astype(np.float32), limit=2.0)


@pytest.fixture
def folder(tiny_checkpoint: Path, space: EmbeddingSpace, tmp_path: Path) -> Path:
    """A checkpoint whose scope was fitted."""
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    save_scope(copy, space)
    return copy


def test_residual_is_the_distance_from_the_space(space: EmbeddingSpace) -> None:
    random = np.random.default_rng(1)
    embeddings = random.normal(size=(7, D)).astype(np.float32)
    inside = space.mean_D + random.normal(size=(7, K)) @ space.basis_DK.T
    assert residuals(inside.astype(np.float32), space.mean_D, space.basis_DK) == pytest.approx(0, abs=1e-2)
    centered = embeddings - space.mean_D
    nearest = np.linalg.lstsq(space.basis_DK, centered.T, rcond=None)[0]
    expected = np.linalg.norm(centered.T - space.basis_DK @ nearest, axis=0)
    assert residuals(embeddings, space.mean_D, space.basis_DK) == pytest.approx(expected, rel=1e-4)
    assert space.distance(embeddings[0]) == pytest.approx(expected[0] / 2, rel=1e-4)


def test_scope_is_added_without_a_change_of_weights_and_id(
    folder: Path, space: EmbeddingSpace, tiny_checkpoint: Path
) -> None:
    before, after = load_checkpoint(tiny_checkpoint), load_checkpoint(folder)
    assert (folder / WEIGHTS).read_bytes() == (tiny_checkpoint / WEIGHTS).read_bytes()
    assert after.space is not None
    np.testing.assert_array_equal(after.space.basis_DK, space.basis_DK)
    checksums = {**before.manifest.checksums, SCOPE: after.manifest.checksums[SCOPE]}
    assert after.manifest == replace(before.manifest, scope_limit=2.0, checksums=checksums)


def test_scope_is_saved_with_a_checkpoint_and_may_be_replaced(folder: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(folder)
    assert save_checkpoint(tmp_path / "again", checkpoint) == checkpoint.manifest
    assert checkpoint.space is not None
    assert save_scope(tmp_path / "again", replace(checkpoint.space, limit=3.0)).scope_limit == 3.0
    again = load_checkpoint(tmp_path / "again").space
    assert again is not None
    assert again.limit == 3.0


def test_checkpoint_of_version_0_1_is_read_and_has_no_scope(tiny_checkpoint: Path, tmp_path: Path) -> None:
    old = shutil.copytree(tiny_checkpoint, tmp_path / "old")
    manifest = json.loads((old / MANIFEST).read_bytes()) | {"schema_version": 2}
    del manifest["scope_limit"]
    (old / MANIFEST).write_text(json.dumps(manifest))
    assert load_checkpoint(old).space is None
    assert read_checkpoint_manifest(old) == read_checkpoint_manifest(tiny_checkpoint)


@pytest.mark.parametrize("content", [b"nothing", None], ids=["another file", "no file"])
def test_damaged_scope_is_refused(folder: Path, content: bytes | None) -> None:
    (folder / SCOPE).unlink()
    if content is not None:
        (folder / SCOPE).write_bytes(content)
    with pytest.raises(ArtifactError, match=SCOPE):
        load_checkpoint(folder)


def test_limit_without_its_space_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    torn = shutil.copytree(tiny_checkpoint, tmp_path / "torn")
    manifest = json.loads((torn / MANIFEST).read_bytes()) | {"scope_limit": 0.5}
    (torn / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="names only one of"):
        load_checkpoint(torn)


def test_space_of_another_network_is_refused(folder: Path) -> None:
    save_scope(folder, EmbeddingSpace(np.zeros(D + 1, np.float32), np.zeros((D + 1, K), np.float32), 1.0))
    with pytest.raises(ArtifactError, match="does not fit the network, whose embeddings have 1024 numbers"):
        load_checkpoint(folder)


def test_starter_has_the_limit_of_its_scope() -> None:
    assert load_checkpoint(STARTER / "checkpoint").space is not None
