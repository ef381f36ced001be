"""Defines `VectorIndex`, the interface of a gallery to the index of its vectors.

To add a vector store, write a class with these members in a new file and list it in `storage.VECTOR_INDEXES`.

Legend: N entries, K numbers of a vector, R rows of entries.
"""

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
DoubleArray = npt.NDArray[np.float64]
EmbeddingArray = npt.NDArray[np.float32]
RowArray = npt.NDArray[np.int64]

StorageChoice = Literal["float32", "float16"]
"""Number type of the vectors on disk; in memory they are float32."""


class VectorIndex(Protocol):
    """The interface to any index that searches a gallery's vectors; many threads may search at once."""

    @property
    def memory_bytes(self) -> int:
        """Return the host memory that the index of vectors uses, in bytes."""

    @property
    def gpu_memory_bytes(self) -> int:
        """Return the GPU memory that the index of vectors uses, in bytes; 0 without a GPU."""

    def vectors(self, rows_R: RowArray) -> EmbeddingArray:
        """Return the vectors that the index has for some entries, (R, K) float32 of length 1."""

    def search(
        self, query_K: EmbeddingArray, depth: int, allowed_N: BoolArray | None = None
    ) -> tuple[EmbeddingArray, RowArray]:
        """Return the vectors of the index with the largest inner products with a query, largest first.

        Args:
            query_K: float32.
            depth: number of vectors to return, from 1 to the number of allowed vectors.
            allowed_N: which vectors may be returned; None allows all.

        Returns:
            Inner products, computed in float32, and rows, (depth,) each. Equal products may come in any order.
        """
