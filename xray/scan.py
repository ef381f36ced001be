"""Vectors and a query in, the rows of its nearest vectors out: exactly those of a float64 search, for a fraction of it.

Every vector x is split into the mean c of all, a few coordinates a along the axes V in which the vectors differ most,
and a rest z, which is kept as int8. With s and t for scales, p and g for int8 codes, e and f for what the rounding took
away, and V orthonormal, the inner product with a query q is

    x = c + V a + z        z = s p + e
    q = c + V b + w        w = t g + f
    x.q = x.c + c.(q - c) + a.b + s t p.g  +  (s p.f + e.w)

where the bracket is at most |s p| |f| + |e| |w| (Cauchy-Schwarz). So one pass over a quarter of the bytes bounds every
inner product, and those that can be among the k greatest are computed in float64: all of them, if need be. Mean and
axes keep them few: beside them little is left of an embedding, and the error shrinks with the square of what is.

Methods: filter and refine with a vector-approximation file (Weber, Schek and Blott, VLDB 1998); axes by randomized
subspace iteration (Halko, Martinsson and Tropp, SIAM Review 2011).

Legend: N vectors, D numbers each, A axes, R some of the rows.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import ThreadpoolController

EmbeddingArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
RowArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

AXES = 16
"""With 8 or more, 10 neighbors of real radiographs take 11 to 20 float64 products; with none they took 200 to 3,000."""
SAMPLE = 2048
"""Vectors from which the axes are found, and at most twice as many; any axes are right, these are good."""
BLOCK = 512
"""Rows that are widened to float64 at once; 8 MB at 1,920 numbers."""


class Rounded(NamedTuple):
    """Vectors as int8: `scales_N` times `codes_ND`, of length `lengths_N`, with remainders of length `errors_N`."""

    codes_ND: npt.NDArray[np.int8]
    scales_N: DoubleArray
    lengths_N: DoubleArray
    errors_N: DoubleArray


@dataclass(frozen=True)
class Scan:
    """Finite float32 vectors and what is known about each; many threads may search at once.

    Attributes:
        levels: greatest code, 127 or 63.
        center_D: the vectors' mean.
        axes_AD: orthonormal.
        center_products_N: inner product of each vector with the mean.
        coordinates_NA: of each vector, from the mean along the axes.
        rounded: the rest of each vector.
        longest: length of the longest vector, and of the mean, at most.
    """

    vectors_ND: EmbeddingArray
    levels: int
    center_D: DoubleArray
    axes_AD: DoubleArray
    center_products_N: DoubleArray
    coordinates_NA: DoubleArray
    rounded: Rounded
    longest: float

    @classmethod
    def over(cls, vectors_ND: EmbeddingArray) -> "Scan":
        """Make the int8 copy of at least one vector, a block at a time."""
        vectors_ND = np.ascontiguousarray(vectors_ND, np.float32)
        count = len(vectors_ND)
        rounded = Rounded(np.empty(vectors_ND.shape, np.int8), np.empty(count), np.empty(count), np.empty(count))
        levels = _exact_levels(rounded.codes_ND)
        center_D = vectors_ND.mean(axis=0, dtype=np.float64)
        axes_AD = _main_axes(vectors_ND[:: max(1, count // SAMPLE)] - center_D)
        center_products_N, coordinates_NA, longest = np.empty(count), np.empty((count, len(axes_AD))), 0.0
        for start in range(0, count, BLOCK):
            block = slice(start, start + BLOCK)
            doubles_RD = vectors_ND[block].astype(np.float64)
            longest = max(longest, float(np.linalg.norm(doubles_RD, axis=1).max()))
            center_products_N[block] = doubles_RD @ center_D
            coordinates_NA[block] = (doubles_RD - center_D) @ axes_AD.T
            part = _rounded(doubles_RD - center_D - coordinates_NA[block] @ axes_AD, levels)
            rounded.codes_ND[block], rounded.scales_N[block] = part.codes_ND, part.scales_N
            rounded.lengths_N[block], rounded.errors_N[block] = part.lengths_N, part.errors_N
        return cls(vectors_ND, levels, center_D, axes_AD, center_products_N, coordinates_NA, rounded, longest)

    @property
    def memory_bytes(self) -> int:
        """Host memory of the vectors and of what is known about them."""
        known = (self.center_D, self.axes_AD, self.center_products_N, self.coordinates_NA, *self.rounded)
        return self.vectors_ND.nbytes + sum(array.nbytes for array in known)

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
        # vecdot, because a matrix product would wake the threads of NumPy's BLAS.
        centered_D = query_D - self.center_D
        along_A = np.vecdot(self.axes_AD, centered_D)
        rest_D = centered_D - (along_A[:, np.newaxis] * self.axes_AD).sum(axis=0)
        query = _rounded(rest_D[np.newaxis], self.levels)
        estimates_N = self.rounded.scales_N * query.scales_N * _int8_products(self.rounded.codes_ND, query.codes_ND[0])
        estimates_N += self.center_products_N + np.vecdot(self.coordinates_NA, along_A) + self.center_D @ centered_D
        errors_N = self.rounded.lengths_N * query.errors_N + self.rounded.errors_N * np.linalg.norm(rest_D)
        # Sums of D float64 numbers, none longer than this, are off by less than D eps each; here and in `products`.
        longest = self.longest * (2 * self.longest + np.linalg.norm(centered_D))
        return estimates_N, errors_N + 8 * len(query_D) * np.finfo(np.float64).eps * longest


def _main_axes(vectors_ND: DoubleArray) -> DoubleArray:
    """Orthonormal axes (A, D) along which vectors around 0 are longest, or nearly so."""
    dimension = vectors_ND.shape[1]
    axes_DA = np.random.default_rng(0).standard_normal((dimension, min(AXES, dimension)))
    for _ in range(3):
        axes_DA = np.linalg.qr(vectors_ND.T @ (vectors_ND @ axes_DA)).Q
    return np.ascontiguousarray(axes_DA.T)


def _rounded(vectors_ND: DoubleArray, levels: int) -> Rounded:
    greatest_N = np.abs(vectors_ND).max(axis=1)
    scales_N = np.where(greatest_N > 0, greatest_N, 1.0) / levels
    codes_ND = np.rint(vectors_ND / scales_N[:, np.newaxis])
    coded_ND = codes_ND * scales_N[:, np.newaxis]
    lengths_N, errors_N = np.linalg.norm(coded_ND, axis=1), np.linalg.norm(vectors_ND - coded_ND, axis=1)
    return Rounded(codes_ND.astype(np.int8), scales_N, lengths_N, errors_N)


def _int8_products(codes_ND: npt.NDArray[np.int8], code_D: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    # On one thread: two need both cores at the same time, which on a busy machine takes four times as long.
    with _openmp().limit(limits=1):
        # torch has no public name for int8 x int8 -> int32 on a CPU; its version is pinned.
        products_N1 = torch._int_mm(torch.from_numpy(codes_ND), torch.from_numpy(code_D[:, np.newaxis]))
    return np.asarray(products_N1.numpy()[:, 0])


@cache
def _openmp() -> ThreadpoolController:
    """How many threads of OpenMP the calling thread gets; other threads, and so the engine's, keep theirs."""
    return ThreadpoolController().select(user_api="openmp")


def _exact_levels(scratch_ND: npt.NDArray[np.int8]) -> int:
    """The greatest code whose products this processor sums exactly; fills `scratch_ND`.

    Without VNNI instructions oneDNN adds two products in int16, which saturates from 65 on.
    """
    for levels in (127, 63):
        scratch_ND[0::2], scratch_ND[1::2] = levels, -levels
        code_D = np.full(scratch_ND.shape[1], levels, np.int8)
        expected_N = scratch_ND[:, 0] * np.int32(levels * scratch_ND.shape[1])
        found = _int8_products(scratch_ND, code_D), -_int8_products(scratch_ND, -code_D)
        if all(np.array_equal(products_N, expected_N) for products_N in found):
            return levels
    raise RuntimeError("torch multiplies int8 matrices wrongly on this processor.")
