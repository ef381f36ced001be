"""Searches vectors with FAISS, and stores them in its file format; the only module that imports FAISS.

Legend: N entries, K numbers of a vector, R rows of entries.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from xray.errors import ArtifactError
from xray.gallery.vector_index import BoolArray, EmbeddingArray, RowArray, StorageChoice

try:
    import faiss
except ImportError as error:
    raise ImportError("Retrieval needs FAISS, which is not installed; install faiss-gpu or faiss-cpu.") from error

GPU_SCRATCH_BYTES = 64 * 2**20
"""Temporary memory of FAISS on a GPU, in bytes; its default of 1.5 GB would be taken from the network."""
MAX_GPU_DEPTH = 2048
"""Maximum number of neighbors that FAISS can select on a GPU."""

logger = logging.getLogger(__name__)


class FaissIndex:
    """Exact search of a gallery by inner product (FAISS's `IndexFlatIP`), on the CPU or on the first GPU.

    FAISS ignores filters on a GPU (its issue 3114), so filtered queries always run on the CPU.
    """

    def __init__(self, vectors_NK: EmbeddingArray, on_gpu: bool = False) -> None:
        """Copy the vectors, also to the GPU if `on_gpu` is set and FAISS sees a GPU."""
        vectors_NK = np.ascontiguousarray(vectors_NK, np.float32)
        self._index = faiss.IndexFlatIP(vectors_NK.shape[1])
        self._index.add(vectors_NK)
        self._gpu_index: Any = None
        if on_gpu and faiss.get_num_gpus() > 0:
            # FAISS's GPU resources belong to one thread, which builds the index and runs every search.
            self._gpu_thread = ThreadPoolExecutor(1, "gallery-gpu")
            self._gpu_index = self._gpu_thread.submit(_build_gpu_index, vectors_NK).result()
        elif on_gpu:
            logger.warning("FAISS sees no GPU, so the gallery is searched on the CPU; install faiss-gpu.")

    @property
    def memory_bytes(self) -> int:
        """Return the host memory of the vectors in FAISS, in bytes."""
        return int(self._index.ntotal * self._index.code_size)

    @property
    def gpu_memory_bytes(self) -> int:
        """Return the GPU memory of the vectors and of FAISS's scratch space, in bytes; 0 without a GPU."""
        return 0 if self._gpu_index is None else self.memory_bytes + GPU_SCRATCH_BYTES

    def vectors(self, rows_R: RowArray) -> EmbeddingArray:
        """Return the vectors of some entries from FAISS, (R, K) float32."""
        vectors_RK: EmbeddingArray = self._index.reconstruct_batch(rows_R)
        return vectors_RK

    def search(
        self, query_K: EmbeddingArray, depth: int, allowed_N: BoolArray | None = None
    ) -> tuple[EmbeddingArray, RowArray]:
        """Search FAISS for the `depth` nearest allowed vectors: inner products, rows; see `VectorIndex`."""
        query_1K = np.ascontiguousarray(query_K[np.newaxis], np.float32)
        if self._gpu_index is not None and allowed_N is None and depth <= MAX_GPU_DEPTH:
            (products_R,), (rows_R,) = self._gpu_thread.submit(self._gpu_index.search, query_1K, depth).result()
            return products_R, rows_R
        # With a selector, FAISS scans in the calling thread. Without one, it splits the scan among OpenMP threads,
        # which is many times slower when other threads, such as the engine's, keep the cores busy.
        selector = faiss.IDSelectorAll() if allowed_N is None else _bitmap_selector(allowed_N)
        parameters = faiss.SearchParameters(sel=selector)
        (products_R,), (rows_R,) = self._index.search(query_1K, depth, params=parameters)
        return products_R, rows_R


def _bitmap_selector(allowed_N: BoolArray) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(allowed_N, bitorder="little"))


def _build_gpu_index(vectors_NK: EmbeddingArray) -> Any:
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(GPU_SCRATCH_BYTES)
    index = faiss.GpuIndexFlatIP(resources, vectors_NK.shape[1])
    index.add(vectors_NK)
    return index


def write_vectors(file: Path, vectors_NK: EmbeddingArray, storage: StorageChoice) -> None:
    """Write a gallery's vectors of length 1 to a FAISS index file, whose type tells how they are stored."""
    if storage == "float32":
        index = faiss.IndexFlatIP(vectors_NK.shape[1])
    else:
        half = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexScalarQuantizer(vectors_NK.shape[1], half, faiss.METRIC_INNER_PRODUCT)
    index.add(np.ascontiguousarray(vectors_NK, np.float32))
    # Not `faiss.write_index`, which reports no error when the disk is full.
    file.write_bytes(faiss.serialize_index(index))


def read_vectors(file: Path) -> EmbeddingArray:
    """Read a FAISS index file's vectors, (N, K) float32: exact, or rounded to float16 and then scaled to length 1.

    Raises:
        ArtifactError: the file is not a FAISS index.
    """
    try:
        stored = faiss.read_index(str(file))
    except RuntimeError as error:
        raise ArtifactError(f"{file} is not an index that FAISS reads; build the gallery again.") from error
    vectors_NK: EmbeddingArray = stored.reconstruct_n(0, stored.ntotal)
    if isinstance(stored, faiss.IndexScalarQuantizer):
        # Rounding changes the lengths, so a near copy could rank above the radiograph itself.
        faiss.normalize_L2(vectors_NK)
    return vectors_NK
