"""Vectors and a query in, estimates of all inner products and how far each can be off out, by int8 arithmetic.

Every vector x is split into the mean c of all, a few coordinates a along the axes V in which the vectors differ most,
and a rest z, which is kept as int8. With s and t for scales, p and g for int8 codes, e and f for what the rounding took
away, and V orthonormal, the inner product with a query q is

    x = c + V a + z        z = s p + e
    q = c + V b + w        w = t g + f
    x.q = x.c + c.(q - c) + a.b + s t p.g  +  (s p.f + e.w)

where the bracket is at most |s p| |f| + |e| |w| (Cauchy-Schwarz). Mean and axes keep it small: beside them little is
left of an embedding, and the error shrinks with the square of what is.

Methods: vector-approximation file (Weber, Schek and Blott, VLDB 1998); axes by randomized subspace iteration (Halko,
Martinsson and Tropp, SIAM Review 2011).

Legend: N vectors, D numbers each, A axes, R some of the rows.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import ThreadpoolController

EmbeddingArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

AXES = 16
"""With 8 or more, 10 neighbors of real radiographs take 11 to 20 float64 products; with none they took 200 to 3,000."""
SAMPLE = 2048
"""Vectors from which the axes are found, and at most twice as many; any axes are right, these are good."""
BLOCK = 512
"""Rows that are widened to float64 at once; 8 MB at 1,920 numbers."""
LEVELS = 127
"""Greatest code."""


class Rounded(NamedTuple):
    """Vectors as int8: `scales_N` times `codes_ND`, of length `lengths_N`, with remainders of length `errors_N`."""

    codes_ND: npt.NDArray[np.int8]
    scales_N: DoubleArray
    lengths_N: DoubleArray
    errors_N: DoubleArray


@dataclass(frozen=True)
class Int8Codes:
    """What is kept of vectors, a quarter of their bytes.

    Attributes:
        center_D: the vectors' mean.
        axes_AD: orthonormal.
        center_products_N: inner product of each vector with the mean.
        coordinates_NA: of each vector, from the mean along the axes.
        rounded: the rest of each vector.
    """

    center_D: DoubleArray
    axes_AD: DoubleArray
    center_products_N: DoubleArray
    coordinates_NA: DoubleArray
    rounded: Rounded

    @classmethod
    def of(cls, vectors_ND: EmbeddingArray) -> "Int8Codes | None":
        """Codes of at least one vector, made a block at a time; None where this processor multiplies them wrongly."""
        count = len(vectors_ND)
        rounded = Rounded(np.empty(vectors_ND.shape, np.int8), np.empty(count), np.empty(count), np.empty(count))
        if not _are_exact(rounded.codes_ND):
            return None
        center_D = vectors_ND.mean(axis=0, dtype=np.float64)
        axes_AD = _main_axes(vectors_ND[:: max(1, count // SAMPLE)] - center_D)
        center_products_N, coordinates_NA = np.empty(count), np.empty((count, len(axes_AD)))
        for start in range(0, count, BLOCK):
            block = slice(start, start + BLOCK)
            doubles_RD = vectors_ND[block].astype(np.float64)
            center_products_N[block] = doubles_RD @ center_D
            coordinates_NA[block] = (doubles_RD - center_D) @ axes_AD.T
            part = _rounded(doubles_RD - center_D - coordinates_NA[block] @ axes_AD)
            rounded.codes_ND[block], rounded.scales_N[block] = part.codes_ND, part.scales_N
            rounded.lengths_N[block], rounded.errors_N[block] = part.lengths_N, part.errors_N
        return cls(center_D, axes_AD, center_products_N, coordinates_NA, rounded)

    @property
    def memory_bytes(self) -> int:
        known = (self.center_D, self.axes_AD, self.center_products_N, self.coordinates_NA, *self.rounded)
        return sum(array.nbytes for array in known)

    def bounds(self, query_D: EmbeddingArray) -> tuple[DoubleArray, DoubleArray]:
        """Estimated inner products with all vectors, and how far each can be off beside rounding, (N,) both."""
        # vecdot, because a matrix product would wake the threads of NumPy's BLAS.
        centered_D = query_D - self.center_D
        along_A = np.vecdot(self.axes_AD, centered_D)
        rest_D = centered_D - (along_A[:, np.newaxis] * self.axes_AD).sum(axis=0)
        query = _rounded(rest_D[np.newaxis])
        estimates_N = self.rounded.scales_N * query.scales_N * _int8_products(self.rounded.codes_ND, query.codes_ND[0])
        estimates_N += self.center_products_N + np.vecdot(self.coordinates_NA, along_A) + self.center_D @ centered_D
        errors_N = self.rounded.lengths_N * query.errors_N + self.rounded.errors_N * np.linalg.norm(rest_D)
        return estimates_N, errors_N


def _main_axes(vectors_ND: DoubleArray) -> DoubleArray:
    """Orthonormal axes (A, D) along which vectors around 0 are longest, or nearly so."""
    dimension = vectors_ND.shape[1]
    axes_DA = np.random.default_rng(0).standard_normal((dimension, min(AXES, dimension)))
    for _ in range(3):
        axes_DA = np.linalg.qr(vectors_ND.T @ (vectors_ND @ axes_DA)).Q
    return np.ascontiguousarray(axes_DA.T)


def _rounded(vectors_ND: DoubleArray) -> Rounded:
    greatest_N = np.abs(vectors_ND).max(axis=1)
    scales_N = np.where(greatest_N > 0, greatest_N, 1.0) / LEVELS
    codes_ND = np.rint(vectors_ND / scales_N[:, np.newaxis])
    coded_ND = codes_ND * scales_N[:, np.newaxis]
    lengths_N, errors_N = np.linalg.norm(coded_ND, axis=1), np.linalg.norm(vectors_ND - coded_ND, axis=1)
    return Rounded(codes_ND.astype(np.int8), scales_N, lengths_N, errors_N)


def _int8_products(codes_ND: npt.NDArray[np.int8], code_D: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    with one_thread():
        # torch has no public name for int8 x int8 -> int32 on a CPU; its version is pinned.
        products_N1 = torch._int_mm(torch.from_numpy(codes_ND), torch.from_numpy(code_D[:, np.newaxis]))
    return np.asarray(products_N1.numpy()[:, 0])


def one_thread() -> AbstractContextManager[object]:
    """A block whose products take one thread: two need both cores at once, on a busy machine four times as long.

    OpenMP counts threads for each thread that calls it; other threads, and so the engine's, keep theirs.
    """
    limited: AbstractContextManager[object] = _openmp().limit(limits=1)
    return limited


@cache
def _openmp() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="openmp")


def _are_exact(scratch_ND: npt.NDArray[np.int8]) -> bool:
    """Whether this processor sums products of the greatest codes exactly; fills `scratch_ND`.

    Without VNNI instructions oneDNN may add two products in int16, which saturates.
    """
    scratch_ND[0::2], scratch_ND[1::2] = LEVELS, -LEVELS
    code_D = np.full(scratch_ND.shape[1], LEVELS, np.int8)
    expected_N = scratch_ND[:, 0] * np.int32(LEVELS * scratch_ND.shape[1])
    found = _int8_products(scratch_ND, code_D), -_int8_products(scratch_ND, -code_D)
    return all(np.array_equal(products_N, expected_N) for products_N in found)
