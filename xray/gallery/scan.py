"""Vectors and a query in, the rows of its nearest vectors out: exactly those of a float64 search, for a fraction of it.

One cheap pass bounds every inner product, and those that can be among the k greatest are computed in float64: all of
them, if need be (filter and refine: Weber, Schek and Blott, VLDB 1998). The pass is over int8 codes, or over the
float32 vectors themselves, whichever is faster here.

Legend: N vectors, D numbers each, R some of the rows.
"""

import timeit
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from xray.gallery.int8_codes import BLOCK, DoubleArray, EmbeddingArray, Int8Codes, one_thread

__all__ = ["BoolArray", "DoubleArray", "EmbeddingArray", "RowArray", "Scan"]

RowArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

TRIALS = 3


@dataclass(frozen=True)
class Scan:
    """Finite float32 vectors and what is known about each; many threads may search at once.

    Attributes:
        longest: length of the longest vector.
        codes: what bounds the inner products; None where float32 products do.
    """

    vectors_ND: EmbeddingArray
    longest: float
    codes: Int8Codes | None

    @classmethod
    def over(cls, vectors_ND: EmbeddingArray) -> "Scan":
        """Make what is to be known of at least one vector."""
        vectors_ND = np.ascontiguousarray(vectors_ND, np.float32)
        blocks = [vectors_ND[start : start + BLOCK] for start in range(0, len(vectors_ND), BLOCK)]
        longest = max(float(np.linalg.norm(block_RD.astype(np.float64), axis=1).max()) for block_RD in blocks)
        plain = cls(vectors_ND, longest, None)
        coded = replace(plain, codes=Int8Codes.of(vectors_ND))
        # With VNNI instructions the codes are four times as fast, without them up to three times as slow.
        return coded if coded.codes and coded.seconds() < plain.seconds() else plain

    @property
    def memory_bytes(self) -> int:
        """Host memory of the vectors and of what is known about them."""
        return self.vectors_ND.nbytes + (self.codes.memory_bytes if self.codes else 0)

    def seconds(self) -> float:
        """That bounding all inner products with a vector takes, at best."""
        return min(timeit.repeat(lambda: self.bounds(self.vectors_ND[0]), number=1, repeat=TRIALS))

    def search(self, query_D: EmbeddingArray, k: int, allowed_N: BoolArray) -> tuple[DoubleArray, RowArray]:
        """Inner products and rows of the k nearest allowed vectors, nearest first, of equals the lower row first.

        Args:
            k: from 1 to the number of allowed vectors.
        """
        allowed_R = np.flatnonzero(allowed_N)
        estimates_R, errors_R = (bound_N[allowed_R] for bound_N in self.bounds(query_D))
        promising = np.argpartition(estimates_R, -k)[-k:]
        # k vectors are at least this near, so none that certainly stays below it can be among the k nearest.
        threshold = self.products(query_D, allowed_R[promising]).min()
        return self.best(query_D, k, allowed_R[estimates_R + errors_R >= threshold])

    def best(self, query_D: EmbeddingArray, k: int, rows_R: RowArray) -> tuple[DoubleArray, RowArray]:
        """The k nearest of some rows, as `search` gives them."""
        products_R = self.products(query_D, rows_R)
        nearest_first = np.lexsort((rows_R, -products_R))[:k]
        return products_R[nearest_first], rows_R[nearest_first]

    def products(self, query_D: EmbeddingArray, rows_R: RowArray) -> DoubleArray:
        """Inner products in float64, (R,)."""
        query_D = query_D.astype(np.float64)
        # Not a matrix product: BLAS sums a row in an order that depends on its place, so that copies would not tie.
        blocks = [rows_R[start : start + BLOCK] for start in range(0, len(rows_R), BLOCK)]
        return np.concatenate([np.vecdot(self.vectors_ND[block].astype(np.float64), query_D) for block in blocks])

    def bounds(self, query_D: EmbeddingArray) -> tuple[DoubleArray, DoubleArray]:
        """Estimated inner products with all vectors, and how far each can be off, (N,) both."""
        # A sum of D products is off by less than D eps of the lengths' product; here and in `products`.
        length = float(np.linalg.norm(query_D.astype(np.float64)))
        rounding = 8 * len(query_D) * float(np.finfo(np.float64).eps) * self.longest * (3 * self.longest + length)
        if self.codes is not None:
            estimates_N, errors_N = self.codes.bounds(query_D)
            return estimates_N, errors_N + rounding
        with one_thread():
            products_N = torch.mv(torch.from_numpy(self.vectors_ND), torch.from_numpy(query_D)).numpy()
        error = len(query_D) * float(np.finfo(np.float32).eps) * self.longest * length
        return products_N.astype(np.float64), np.full(len(products_N), error + rounding)
