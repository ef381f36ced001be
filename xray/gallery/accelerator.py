"""A FAISS index on a GPU and a query in, candidates out that are proven to hold the nearest.

FAISS GPU indexes are not thread-safe, not even for reads: one thread builds this one, asks it and nothing else.

Legend: D embedding, R candidates.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from xray.gallery.scan import EmbeddingArray, RowArray, Scan

SPARE = 54
"""Candidates beyond the k wanted ones, so that near ties at the end seldom need the CPU; 64 for k = 10."""
MOST = 2048
"""Neighbors that FAISS finds on a GPU at most."""


class Accelerator:
    """The GPU's index over a scan's vectors, and the thread that owns it."""

    def __init__(self, build: Callable[[], Any], scan: Scan) -> None:
        """`build` returns an inner-product index over the scan's vectors that computes in float32."""
        self._owner = ThreadPoolExecutor(1, "gallery-gpu")
        self._index = self._owner.submit(build).result()
        self._scan = scan

    def candidates(self, query_D: EmbeddingArray, k: int) -> RowArray | None:
        """Rows among which the k nearest are, or None where float32 cannot tell."""
        count, dimension = self._scan.vectors_ND.shape
        asked = min(k + SPARE, count)
        if asked > MOST:
            return None
        query_1D = np.ascontiguousarray(query_D[np.newaxis], np.float32)
        (similarities_R,), (rows_R,) = self._owner.submit(self._index.search, query_1D, asked).result()
        # Sums of D float32 products, in whatever order, are off by less than D eps of both lengths.
        error = dimension * np.finfo(np.float32).eps * self._scan.longest * float(np.linalg.norm(query_D))
        products_R = self._scan.products(query_D, rows_R)
        as_assumed = bool((np.abs(similarities_R - products_R) <= error).all())
        nothing_hidden = asked == count or similarities_R.min() + error < np.partition(products_R, -k)[-k]
        return rows_R if as_assumed and nothing_hidden else None
