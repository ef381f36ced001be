"""A finished gallery in, proof that it answers rightly out.

Legend: N entries, M sampled ones, C consecutive ones, J neighbors, D embedding, K vector.
"""

from collections.abc import Mapping

import numpy as np
from tqdm import tqdm

from xray.errors import ArtifactError
from xray.gallery.gallery import Gallery, NeighborQuery
from xray.gallery.vector_index import EmbeddingArray

SAMPLE = 64
"""Entries whose radiographs are read and embedded once more, and whose neighbors are compared with a NumPy product."""
CHUNK = 1024
"""Entries multiplied at once."""
NEIGHBORS = 10
TOLERANCE = 1e-4
"""Similarity of one radiograph's embeddings; storage as float16, or a pass in another batch, changes it by less."""
ROUNDING = 1e-12
"""Similarity; float64 sums of 1,920 products in another order differ by less."""


def sampled_rows(gallery: Gallery) -> list[int]:
    """Which entries the check embeds once more; always the same ones of a gallery."""
    count = len(gallery.entries)
    return sorted(int(row) for row in np.random.default_rng(0).choice(count, min(SAMPLE, count), replace=False))


def check_gallery(gallery: Gallery, embedded_again: Mapping[int, EmbeddingArray]) -> None:
    """Every entry finds itself first, stands beside its own embedding, and the neighbors are NumPy's in float64.

    Args:
        embedded_again: by row of the gallery, what the network says of that entry's own file, (D,).

    Raises:
        ArtifactError: names the first entry that does not, or the query on which the two differ.
    """
    for row, entry in enumerate(tqdm(gallery.entries, desc="checking", unit="entry")):
        vector_K = gallery.vectors(np.array([row]))[0]
        nearest = gallery.search_vector(vector_K, NeighborQuery(k=1))[0].similarity
        # An exact copy elsewhere in the dataset may come first, but it is exactly as near.
        if not abs(nearest - float(vector_K @ vector_K)) <= TOLERANCE:
            raise ArtifactError(f"{entry.path} does not find itself first; build the gallery again.")
    again = {row: gallery.project(embedding_D) for row, embedding_D in embedded_again.items()}
    for row, vector_K in again.items():
        if not float(gallery.vectors(np.array([row]))[0] @ vector_K) >= 1 - TOLERANCE:
            path = gallery.entries[row].path
            raise ArtifactError(f"{path} stands beside the embedding of another radiograph; build the gallery again.")
    _check_neighbors(gallery, again)


def _check_neighbors(gallery: Gallery, queries: Mapping[int, EmbeddingArray]) -> None:
    queries_MK = np.stack([*queries.values()]).astype(np.float64)
    rows_N = np.arange(len(gallery.entries))
    chunks = [rows_N[start : start + CHUNK] for start in range(0, len(rows_N), CHUNK)]
    similarities_MN = np.concatenate([queries_MK @ gallery.vectors(rows_C).T for rows_C in chunks], axis=1)
    expected_MJ = np.minimum(1.0, -np.sort(-similarities_MN, axis=1)[:, :NEIGHBORS])
    for (row, vector_K), expected_J in zip(queries.items(), expected_MJ, strict=True):
        found_J = [neighbor.similarity for neighbor in gallery.search_vector(vector_K, NeighborQuery(k=NEIGHBORS))]
        if not np.allclose(found_J, expected_J, rtol=0, atol=ROUNDING):
            path = gallery.entries[row].path
            raise ArtifactError(f"Search and NumPy differ on the neighbors of {path}; build the gallery again.")
