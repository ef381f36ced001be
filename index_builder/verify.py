"""Checks of a finished gallery that embeddings belong to their entries and that searches find the nearest neighbors.

Legend: N entries, M sampled ones, C consecutive ones, J neighbors, D embedding, K vector.
"""

from collections.abc import Mapping

import numpy as np
from tqdm import tqdm

from xray.errors import ArtifactError
from xray.gallery.gallery import Gallery, NeighborQuery
from xray.gallery.vector_index import EmbeddingArray

SAMPLE_SIZE = 64
"""Number of entries to embed again and to search with NumPy, which takes seconds on a CPU."""
CHUNK_SIZE = 1024
"""Number of entries per matrix product, which limits the memory for their float64 copies."""
NEIGHBORS = 10
"""Number of neighbors to compare for each sampled entry."""
TOLERANCE = 1e-4
"""Maximum change of a similarity; storage as float16 or another batch changes it by less."""
ROUNDING = 1e-12
"""Maximum difference of a similarity; float64 sums of 1,920 products in a different order differ by less."""


def sample_rows(gallery: Gallery) -> list[int]:
    """Return the rows of the entries to verify by embedding them again; always the same for a gallery."""
    count = len(gallery.entries)
    return sorted(int(row) for row in np.random.default_rng(0).choice(count, min(SAMPLE_SIZE, count), replace=False))


def check_gallery(gallery: Gallery, embedded_again: Mapping[int, EmbeddingArray]) -> None:
    """Verify that every entry finds itself first and has its own embedding, and that NumPy finds the same neighbors.

    Args:
        embedded_again: fresh embeddings (D,) of sampled entries, by row of the gallery.

    Raises:
        ArtifactError: an entry fails; the message names the first one.
    """
    for row, entry in enumerate(tqdm(gallery.entries, desc="checking", unit="entry")):
        vector_K = gallery.vectors(np.array([row]))[0]
        nearest = gallery.search_vector(vector_K, NeighborQuery(k=1))[0].similarity
        # An exact copy elsewhere in the dataset may come first, but it has the same similarity.
        if not abs(nearest - float(vector_K @ vector_K)) <= TOLERANCE:
            raise ArtifactError(f"{entry.path} does not find itself first; build the gallery again.")
    again = {row: gallery.project(embedding_D) for row, embedding_D in embedded_again.items()}
    for row, vector_K in again.items():
        if not float(gallery.vectors(np.array([row]))[0] @ vector_K) >= 1 - TOLERANCE:
            path = gallery.entries[row].path
            raise ArtifactError(f"{path} has the embedding of another radiograph; build the gallery again.")
    _check_neighbors(gallery, again)


def _check_neighbors(gallery: Gallery, queries: Mapping[int, EmbeddingArray]) -> None:
    queries_MK = np.stack([*queries.values()]).astype(np.float64)
    rows_N = np.arange(len(gallery.entries))
    chunks = [rows_N[start : start + CHUNK_SIZE] for start in range(0, len(rows_N), CHUNK_SIZE)]
    similarities_MN = np.concatenate([queries_MK @ gallery.vectors(rows_C).T for rows_C in chunks], axis=1)
    expected_MJ = np.minimum(1.0, -np.sort(-similarities_MN, axis=1)[:, :NEIGHBORS])
    for (row, vector_K), expected_J in zip(queries.items(), expected_MJ, strict=True):
        found_J = [neighbor.similarity for neighbor in gallery.search_vector(vector_K, NeighborQuery(k=NEIGHBORS))]
        if not np.allclose(found_J, expected_J, rtol=0, atol=ROUNDING):
            path = gallery.entries[row].path
            raise ArtifactError(f"Search and NumPy differ on the neighbors of {path}; build the gallery again.")
