"""A finished gallery in, proof that it answers rightly out.

Legend: N entries, D embedding.
"""

import numpy as np
from tqdm import tqdm

from xray.errors import ArtifactError
from xray.gallery import Gallery, Wanted

SAMPLE = 64
"""Queries compared with a NumPy product."""
TOLERANCE = 1e-4
"""Similarity; float32 sums of 1,920 products in another order differ by less."""


def check_gallery(gallery: Gallery) -> None:
    """Every entry finds itself first, and FAISS agrees with a plain matrix product.

    Raises:
        ArtifactError: names the first entry that does not, or the query on which the two differ.
    """
    rows_N = np.arange(len(gallery.entries))
    embeddings_ND = gallery.embeddings(rows_N)
    for row in tqdm(rows_N, desc="checking", unit="entry"):
        nearest = gallery.search(embeddings_ND[row], Wanted(k=1))[0]
        own = float(embeddings_ND[row] @ embeddings_ND[row])
        # An exact copy elsewhere in the dataset may come first, but it is exactly as near.
        if abs(nearest.similarity - own) > TOLERANCE:
            raise ArtifactError(f"{gallery.entries[row].path} does not find itself first; build the gallery again.")
    for row in np.random.default_rng(0).choice(rows_N, min(SAMPLE, len(rows_N)), replace=False):
        found = [neighbor.similarity for neighbor in gallery.search(embeddings_ND[row], Wanted(k=10))]
        expected = np.sort(embeddings_ND @ embeddings_ND[row])[::-1][: len(found)]
        if not np.allclose(found, expected, atol=TOLERANCE):
            raise ArtifactError(f"FAISS and NumPy differ on the neighbors of {gallery.entries[row].path}.")
