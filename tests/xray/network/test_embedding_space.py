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
    TrainingData,
    load_checkpoint,
    read_checkpoint_manifest,
    save_checkpoint,
    save_scope,
    save_with_weights_of,
)
from xray.network.embedding_space import MAX_FAMILIARITY, EmbeddingSpace, residuals
from xray.network.ood import LimbClassifier

D, K = 1024, 4
LIMBS = LimbClassifier(np.linspace(-1, 1, D, dtype=np.float32), bias=0.25, limit=0.75)


@pytest.fixture(scope="module")
def space() -> EmbeddingSpace:
    random = np.random.default_rng(0)
    basis, _ = np.linalg.qr(random.normal(size=(D, K)))
    return EmbeddingSpace(random.normal(size=D).astype(np.float32), basis.astype(np.float32), limit=2.0)


@pytest.fixture
def folder(tiny_checkpoint: Path, space: EmbeddingSpace, tmp_path: Path) -> Path:
    """A checkpoint whose scope was fitted."""
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    save_scope(copy, space, LIMBS)
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
    assert space.familiarity(embeddings[0]) == pytest.approx(2 / expected[0], rel=1e-4)
    assert space.familiarity(space.mean_D) == MAX_FAMILIARITY


def test_scope_is_added_without_a_change_of_weights_and_id(
    folder: Path, space: EmbeddingSpace, tiny_checkpoint: Path
) -> None:
    before, after = load_checkpoint(tiny_checkpoint), load_checkpoint(folder)
    assert (folder / WEIGHTS).read_bytes() == (tiny_checkpoint / WEIGHTS).read_bytes()
    assert after.space is not None
    np.testing.assert_array_equal(after.space.basis_DK, space.basis_DK)
    assert after.limb_classifier is not None
    np.testing.assert_array_equal(after.limb_classifier.weights_D, LIMBS.weights_D)
    assert after.limb_classifier.bias == LIMBS.bias
    checksums = {**before.manifest.checksums, SCOPE: after.manifest.checksums[SCOPE]}
    expected = replace(before.manifest, checksums=checksums, familiarity_limit=2.0, scope_limit=0.75)
    assert after.manifest == expected


def test_scope_is_saved_with_a_checkpoint_and_may_be_replaced(folder: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(folder)
    assert save_checkpoint(tmp_path / "again", checkpoint) == checkpoint.manifest
    assert checkpoint.space is not None
    replaced = save_scope(tmp_path / "again", replace(checkpoint.space, limit=3.0))
    assert (replaced.familiarity_limit, replaced.scope_limit) == (3.0, None)
    again = load_checkpoint(tmp_path / "again")
    assert again.space is not None
    assert again.space.limit == 3.0
    assert again.limb_classifier is None


def test_adapted_checkpoint_keeps_the_weights_and_names_its_images(
    folder: Path, space: EmbeddingSpace, tmp_path: Path
) -> None:
    before, site, images = (
        load_checkpoint(folder),
        TrainingData("SITE", 2, 3, "f" * 64),
        frozenset({"a" * 64, "b" * 64}),
    )
    (folder / "int8").mkdir()
    (folder / "int8" / "graph.bin").write_bytes(b"graph")
    manifest = replace(before.manifest, adapted_on=site, thresholds={"default": 0.3})
    adapted = replace(before, manifest=manifest, space=replace(space, limit=3.0), adapted_images=images)
    written = save_with_weights_of(folder, tmp_path / "adapted", adapted)
    after = load_checkpoint(tmp_path / "adapted")
    assert (after.manifest, after.adapted_images) == (written, images)
    assert (written.id, written.adapted_on, written.familiarity_limit) == (before.manifest.id, site, 3.0)
    assert (tmp_path / "adapted" / "int8" / "graph.bin").read_bytes() == b"graph"
    assert (tmp_path / "adapted" / "int8").stat().st_mode & 0o100, "others than root must be able to enter the folder"
    assert load_checkpoint(folder).manifest == before.manifest


def test_checkpoint_of_version_0_1_is_read_and_has_no_scope(tiny_checkpoint: Path, tmp_path: Path) -> None:
    old = shutil.copytree(tiny_checkpoint, tmp_path / "old")
    manifest = json.loads((old / MANIFEST).read_bytes()) | {"schema_version": 2}
    del manifest["scope_limit"], manifest["familiarity_limit"], manifest["adapted_on"]
    (old / MANIFEST).write_text(json.dumps(manifest))
    assert load_checkpoint(old).space is None
    assert read_checkpoint_manifest(old) == read_checkpoint_manifest(tiny_checkpoint)


def test_limit_of_schema_version_3_is_that_of_familiarity(
    tiny_checkpoint: Path, space: EmbeddingSpace, tmp_path: Path
) -> None:
    old = shutil.copytree(tiny_checkpoint, tmp_path / "old")
    save_scope(old, space)
    manifest = json.loads((old / MANIFEST).read_bytes()) | {"schema_version": 3, "scope_limit": 2.0}
    del manifest["familiarity_limit"], manifest["adapted_on"]
    (old / MANIFEST).write_text(json.dumps(manifest))
    checkpoint = load_checkpoint(old)
    assert checkpoint.space is not None
    assert (checkpoint.space.limit, checkpoint.limb_classifier) == (2.0, None)


@pytest.mark.parametrize("content", [b"nothing", None], ids=["another file", "no file"])
def test_damaged_scope_is_refused(folder: Path, content: bytes | None) -> None:
    (folder / SCOPE).unlink()
    if content is not None:
        (folder / SCOPE).write_bytes(content)
    with pytest.raises(ArtifactError, match=SCOPE):
        load_checkpoint(folder)


def test_limit_without_its_space_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    torn = shutil.copytree(tiny_checkpoint, tmp_path / "torn")
    manifest = json.loads((torn / MANIFEST).read_bytes()) | {"familiarity_limit": 0.5}
    (torn / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="names only one of"):
        load_checkpoint(torn)


def test_space_of_another_network_is_refused(folder: Path) -> None:
    save_scope(folder, EmbeddingSpace(np.zeros(D + 1, np.float32), np.zeros((D + 1, K), np.float32), 1.0))
    with pytest.raises(ArtifactError, match="does not fit the network, whose embeddings have 1024 numbers"):
        load_checkpoint(folder)


def test_classifier_of_another_network_is_refused(folder: Path, space: EmbeddingSpace) -> None:
    save_scope(folder, space, replace(LIMBS, weights_D=np.zeros(D + 1, np.float32)))
    with pytest.raises(ArtifactError, match="does not fit the network, whose embeddings have 1024 numbers"):
        load_checkpoint(folder)


def test_classifier_without_its_limit_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes()) | {"scope_limit": None}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="holds arrays that the manifest does not mention"):
        load_checkpoint(folder)


def test_starter_has_a_limit_of_familiarity() -> None:
    assert load_checkpoint(STARTER / "checkpoint").space is not None
