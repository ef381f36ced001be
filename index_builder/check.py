"""A finished gallery in, proof that it answers rightly out.

Legend: N entries, Q of them asked for at once, M sampled ones, D embedding.
"""

from collections.abc import Mapping

import numpy as np
from tqdm import tqdm

from xray.errors import ArtifactError
from xray.gallery import EmbeddingArray, Gallery

SAMPLE = 64
"""Entries whose radiographs are read and embedded once more, and whose neighbors are compared with a NumPy product."""
CHUNK = 256
"""Queries searched at once."""
TOLERANCE = 1e-4
"""Similarity; float16 storage and float32 sums of 1,920 products in another order differ by less."""


def sampled_rows(gallery: Gallery) -> list[int]:
    """Which entries the check embeds once more; always the same ones of a gallery."""
    count = len(gallery.entries)
    return sorted(int(row) for row in np.random.default_rng(0).choice(count, min(SAMPLE, count), replace=False))


def check_gallery(gallery: Gallery, embedded_again: Mapping[int, EmbeddingArray]) -> None:
    """Every entry finds itself first, stands beside its own embedding, and FAISS agrees with a plain matrix product.

    Args:
        embedded_again: by row of the gallery, what the network says of that entry's own file, (D,).

    Raises:
        ArtifactError: names the first entry that does not, or the query on which the two differ.
    """
    embeddings_ND = gallery.embeddings(np.arange(len(gallery.entries)))
    for start in tqdm(range(0, len(embeddings_ND), CHUNK), desc="checking", unit="chunk"):
        queries_QD = embeddings_ND[start : start + CHUNK]
        nearest_Q = gallery.nearest(queries_QD, 1)[0][:, 0]
        # An exact copy elsewhere in the dataset may come first, but it is exactly as near.
        wrong = np.flatnonzero(~(np.abs(nearest_Q - (queries_QD**2).sum(1)) <= TOLERANCE))
        if len(wrong):
            path = gallery.entries[start + int(wrong[0])].path
            raise ArtifactError(f"{path} does not find itself first; build the gallery again.")
    for row, embedding_D in embedded_again.items():
        _check_neighbors(gallery, embeddings_ND, row, embedding_D)


def _check_neighbors(gallery: Gallery, embeddings_ND: EmbeddingArray, row: int, embedding_D: EmbeddingArray) -> None:
    path = gallery.entries[row].path
    if not float(embeddings_ND[row] @ embedding_D) >= 1 - TOLERANCE:
        raise ArtifactError(f"{path} stands beside the embedding of another radiograph; build the gallery again.")
    found = gallery.nearest(embedding_D[np.newaxis], min(10, len(embeddings_ND)))[0][0]
    expected = np.sort(embeddings_ND @ embedding_D)[::-1][: len(found)]
    if not np.allclose(found, expected, atol=TOLERANCE):
        raise ArtifactError(f"FAISS and NumPy differ on the neighbors of {path}.")
