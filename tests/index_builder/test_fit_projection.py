"""The projection brings like beside like."""

import numpy as np
import pytest

from index_builder.fit_projection import fit_projection, largest_dimension
from xray.gallery.entries import GalleryEntry

COUNT, D, K = 1200, 40, 16
PARTS = ("XR_HAND", "XR_LEG")


def drawn(seed: int) -> tuple[np.ndarray, list[GalleryEntry]]:
    """Embeddings that vary most in ten directions that mean nothing, little in those of part and label."""
    random = np.random.default_rng(seed)
    numbers = np.arange(COUNT)
    parts, targets = numbers % 2, numbers // 2 % 2
    embeddings = random.normal(size=(COUNT, D)) * np.where(np.arange(D) < 10, 1.0, 0.02)
    embeddings[:, 10] += 0.2 * parts
    embeddings[:, 11] += 0.2 * targets
    embeddings += 3 * np.eye(D)[-1]
    entries = [
        GalleryEntry(f"image{n}", PARTS[n % 2], f"patient{n // 4}", "study1", ("normal", "abnormal")[n // 2 % 2])
        for n in numbers
    ]
    return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32), entries


def alike(queries: np.ndarray, vectors: np.ndarray, entries: list[GalleryEntry]) -> float:
    """Share of the ten nearest that have part and label of their query."""
    classes = np.array([f"{entry.body_part} {entry.label}" for entry in entries])
    nearest = np.argsort(-queries @ vectors.T, axis=1)[:, :10]
    return float((classes[nearest] == classes[:, np.newaxis]).mean())


def test_neighbors_of_further_radiographs_are_of_their_class() -> None:
    embeddings, entries = drawn(0)
    further, same_order = drawn(1)
    projection = fit_projection(embeddings, entries, K)
    assert alike(further, embeddings, same_order) < 0.4
    assert alike(projection.project(further), projection.project(embeddings), same_order) > 0.9


def test_within_a_class_the_more_similar_one_is_nearer() -> None:
    embeddings, entries = drawn(0)
    projection = fit_projection(embeddings, entries, K)
    vectors = projection.project(embeddings)
    random = np.random.default_rng(2)
    disturbed = embeddings + 0.0005 * random.normal(size=embeddings.shape).astype(np.float32)
    assert (np.argmax(projection.project(disturbed) @ vectors.T, axis=1) == np.arange(COUNT)).mean() > 0.9


@pytest.mark.parametrize("count", [1, 2, 9])
def test_few_entries_have_few_directions_and_fit_all_the_same(count: int) -> None:
    embeddings, entries = drawn(0)
    dimension = largest_dimension(entries[:count])
    assert dimension <= count // 2
    if dimension:
        assert np.isfinite(fit_projection(embeddings[:count], entries[:count], dimension).project(embeddings)).all()
