"""What a gallery's folder is made of: entries, vectors, manifest; the one place that knows FAISS.

Legend: N entries, D embedding.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow
from pyarrow import parquet

from xray.errors import ArtifactError
from xray.gallery.scan import EmbeddingArray
from xray.images.preprocess import PREPROCESS_VERSION
from xray.mura.studies import study_key

try:
    import faiss
except ImportError as error:
    raise ImportError("Retrieval needs FAISS, which is not installed; install faiss-gpu or faiss-cpu.") from error

ENTRIES = "entries.parquet"
INDEX = "index.faiss"
SCHEMA_VERSION = 3
GPU_SCRATCH_BYTES = 64 * 2**20
"""What FAISS may take on a GPU beside the vectors; its default is 1.5 GB."""

UNKNOWN = "unknown"
"""What an archive does not say."""

StorageChoice = Literal["float32", "float16"]


@dataclass(frozen=True)
class GalleryEntry:
    """One indexed radiograph.

    Attributes:
        path: the dataset's, never this machine's; of a hospital's archive a pseudonymous reference.
        label: `normal`, `abnormal`, or `UNKNOWN`, as each of the following may be.
    """

    path: str
    body_part: str
    patient: str
    study: str
    label: str

    @property
    def study_key(self) -> str:
        """Unique among studies; a reference to an archive's study is so by itself."""
        return self.study if self.patient == UNKNOWN else study_key(self.body_part, self.patient, self.study)


@dataclass(frozen=True)
class GalleryManifest:
    """How a gallery was built.

    Attributes:
        checkpoint: id of the checkpoint that made the embeddings; no other can query it.
        dataset, split: what was indexed.
        only: `abnormal` when normal radiographs were left out, else `all`.
        unreadable: dataset paths that could not be decoded and are missing.
        dimension: of the vectors that are searched.
        scope_limit: residual of the projection beyond which an embedding is unlike all entries; None without one.
        checksums: SHA-256 of each file of the folder, by name.
        preprocess_version: `PREPROCESS_VERSION` of the program that made the embeddings.
    """

    checkpoint: str
    dataset: str
    split: str
    only: str
    dimension: int
    count: int
    unreadable: tuple[str, ...] = ()
    scope_limit: float | None = None
    schema_version: int = SCHEMA_VERSION
    checksums: dict[str, str] = field(default_factory=dict)
    preprocess_version: int = PREPROCESS_VERSION


def write_entries(file: Path, entries: Sequence[GalleryEntry]) -> None:
    parquet.write_table(pyarrow.Table.from_pylist([asdict(entry) for entry in entries]), file)


def read_entries(file: Path) -> tuple[GalleryEntry, ...]:
    """Raises: ArtifactError: the file is no Parquet table of entries."""
    try:
        return msgspec.convert(parquet.read_table(file).to_pylist(), tuple[GalleryEntry, ...])
    except (pyarrow.ArrowException, msgspec.ValidationError, OSError) as error:
        raise ArtifactError(f"{file} does not hold a gallery's entries: {error}") from error


def write_vectors(file: Path, vectors_ND: EmbeddingArray, storage: StorageChoice) -> None:
    """Write vectors of length 1; the type of the FAISS index in the file tells how they are stored."""
    if storage == "float32":
        index = faiss.IndexFlatIP(vectors_ND.shape[1])
    else:
        half = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexScalarQuantizer(vectors_ND.shape[1], half, faiss.METRIC_INNER_PRODUCT)
    index.add(np.ascontiguousarray(vectors_ND, np.float32))
    file.write_bytes(
        faiss.serialize_index(index)
    )  # FAISS itself is silent where the end of it does not fit on the disk


def read_vectors(file: Path) -> EmbeddingArray:
    """The vectors, (N, D): as they were given, or rounded to float16 and then to length 1.

    Raises:
        ArtifactError: the file is no FAISS index.
    """
    try:
        stored = faiss.read_index(str(file))
    except RuntimeError as error:
        raise ArtifactError(f"{file} is not an index that FAISS reads; build the gallery again.") from error
    vectors_ND: EmbeddingArray = stored.reconstruct_n(0, stored.ntotal)
    if isinstance(stored, faiss.IndexScalarQuantizer):
        faiss.normalize_L2(vectors_ND)  # float16 bent their lengths, and a near copy could outdo the radiograph itself
    return vectors_ND


def gpu_index(vectors_ND: EmbeddingArray) -> Any:
    """A float32 inner-product index on the first GPU; one thread may use it, the one that calls this."""
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(GPU_SCRATCH_BYTES)
    index = faiss.GpuIndexFlatIP(resources, vectors_ND.shape[1])
    index.add(vectors_ND)
    return index
