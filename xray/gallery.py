"""Embeddings of a dataset in, nearest neighbors of a query out; the one place that knows FAISS.

A gallery folder holds `index.faiss`, `entries.parquet` and `manifest.json`. Vectors are stored as float16, which
halves the file and moves a similarity by less than 1e-4, and searched in float32: exact inner products, which are
cosines because embeddings have length 1.

Legend: N entries, Q queries, D embedding.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow
from pyarrow import parquet

from xray.artifact import read_manifest, sha256, verify, write_manifest, written_whole
from xray.errors import ArtifactError, InputError
from xray.mura import study_key

try:
    import faiss
except ImportError as error:
    raise ImportError("Retrieval needs FAISS, which is not installed; install faiss-gpu or faiss-cpu.") from error

SCHEMA_VERSION = 1
INDEX = "index.faiss"
ENTRIES = "entries.parquet"

EmbeddingArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GalleryEntry:
    """One indexed radiograph; `path` is the dataset's, never this machine's."""

    path: str
    body_part: str
    patient: str
    study: str
    label: str

    @property
    def study_key(self) -> str:
        return study_key(self.body_part, self.patient, self.study)


@dataclass(frozen=True)
class GalleryManifest:
    """How a gallery was built.

    Attributes:
        checkpoint: id of the checkpoint that made the embeddings; no other can query it.
        dataset, split: what was indexed.
        only: `abnormal` when normal radiographs were left out, else `all`.
        unreadable: dataset paths that could not be decoded and are missing.
        checksums: SHA-256 of each file of the folder, by name.
    """

    checkpoint: str
    dataset: str
    split: str
    only: str
    dimension: int
    count: int
    unreadable: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION
    checksums: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Neighbor:
    """One answer: `rank` counts from 1, `similarity` is the cosine."""

    rank: int
    entry: GalleryEntry
    similarity: float


@dataclass(frozen=True)
class Wanted:
    """Which neighbors to look for; None does not restrict.

    Attributes:
        k: how many at most.
        exclude_study: key of a study whose radiographs are left out, e.g. the query's own.
    """

    k: int = 5
    body_part: str | None = None
    label: str | None = None
    exclude_study: str | None = None


@dataclass(frozen=True)
class Gallery:
    """Entries and the FAISS index over their embeddings.

    Attributes:
        accelerated: a copy of the index on the GPU, if any; one thread at a time may ask it.
    """

    manifest: GalleryManifest
    entries: tuple[GalleryEntry, ...]
    index: Any
    accelerated: Any = None
    accelerator_turn: Lock = field(default_factory=Lock, compare=False)

    @cached_property
    def body_parts(self) -> tuple[str, ...]:
        return tuple(sorted({entry.body_part for entry in self.entries}))

    def search(self, embedding_D: EmbeddingArray, wanted: Wanted) -> list[Neighbor]:
        """The nearest entries, nearest first; fewer than k when the restrictions leave fewer.

        Raises:
            InputError: the gallery has no such body part.
        """
        if wanted.body_part is not None:
            self.require_body_part(wanted.body_part)
        allowed_N = self._allowed(wanted)
        k = min(wanted.k, int(allowed_N.sum()))
        if k == 0:
            return []
        query_1D = np.ascontiguousarray(embedding_D, np.float32)[np.newaxis]
        if allowed_N.all():
            similarities, rows = self.nearest(query_1D, k)
        else:
            # FAISS filters on the CPU only.
            selector = faiss.IDSelectorBitmap(np.packbits(allowed_N, bitorder="little"))
            similarities, rows = self.index.search(query_1D, k, params=faiss.SearchParameters(sel=selector))
        nearest_first = np.lexsort((rows[0], -similarities[0]))  # copies of one radiograph tie: the first entry wins
        return [
            Neighbor(rank, self.entries[rows[0][place]], min(1.0, float(similarities[0][place])))
            for rank, place in enumerate(nearest_first, start=1)
        ]

    def nearest(self, queries_QD: EmbeddingArray, k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Similarities and rows of the k nearest entries of each query, (Q, k) each; no restrictions."""
        if self.accelerated is None:
            found = self.index.search(queries_QD, k)
        else:
            with self.accelerator_turn:
                found = self.accelerated.search(queries_QD, k)
        return found[0], found[1]

    def require_body_part(self, body_part: str) -> None:
        """Raises: InputError: no entry shows it."""
        if body_part not in self.body_parts:
            raise InputError(f"No entry shows {body_part!r}; the gallery has {', '.join(self.body_parts)}.")

    def embeddings(self, rows: npt.NDArray[np.int64]) -> EmbeddingArray:
        """The stored vectors of some entries, (len(rows), D)."""
        return np.asarray(self.index.reconstruct_batch(rows), np.float32)

    def _allowed(self, wanted: Wanted) -> npt.NDArray[np.bool_]:
        allowed_N = np.ones(len(self.entries), bool)
        for column, value in (("body_part", wanted.body_part), ("label", wanted.label)):
            if value is not None:
                allowed_N &= self._columns[column] == value
        if wanted.exclude_study is not None:
            allowed_N &= self._columns["study_key"] != wanted.exclude_study
        return allowed_N

    @cached_property
    def _columns(self) -> dict[str, npt.NDArray[np.str_]]:
        names = ("body_part", "label", "study_key")
        return {name: np.array([getattr(entry, name) for entry in self.entries]) for name in names}


def save_gallery(
    folder: Path, manifest: GalleryManifest, entries: Sequence[GalleryEntry], embeddings_ND: EmbeddingArray
) -> GalleryManifest:
    """Write the folder whole or not at all, and return the manifest with its checksums."""
    index = faiss.IndexScalarQuantizer(manifest.dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.add(np.ascontiguousarray(embeddings_ND, np.float32))
    with written_whole(folder) as partial:
        faiss.write_index(index, str(partial / INDEX))
        parquet.write_table(pyarrow.Table.from_pylist([asdict(entry) for entry in entries]), partial / ENTRIES)
        checksums = {name: sha256(partial / name) for name in (INDEX, ENTRIES)}
        finished = GalleryManifest(**{**asdict(manifest), "checksums": checksums})
        write_manifest(partial, finished)
    return finished


def load_gallery(folder: Path, checkpoint_id: str, on_gpu: bool = False) -> Gallery:
    """Read and verify a folder; needs 4 x N x D bytes of memory, and as much again on the GPU.

    Raises:
        ArtifactError: a file is missing or damaged, or the gallery belongs to another checkpoint.
    """
    manifest = read_manifest(folder, GalleryManifest)
    verify(folder, {INDEX: "", ENTRIES: "", **manifest.checksums})
    if manifest.checkpoint != checkpoint_id:
        raise ArtifactError(
            f"{folder} was built with checkpoint {manifest.checkpoint}, not {checkpoint_id}; build it again."
        )
    entries, stored = _read_entries(folder / ENTRIES), _read_index(folder / INDEX)
    expected = manifest.count, manifest.dimension
    if (len(entries), stored.d) != expected or stored.ntotal != manifest.count:
        raise ArtifactError(
            f"{folder} has {len(entries)} entries and {stored.ntotal} vectors of {stored.d} numbers, but its manifest "
            f"says {expected[0]} of {expected[1]}; build it again."
        )
    vectors_ND = stored.reconstruct_n(0, stored.ntotal)
    faiss.normalize_L2(vectors_ND)  # float16 bent their lengths, and a near copy could outdo the radiograph itself
    index = faiss.IndexFlatIP(stored.d)
    index.add(vectors_ND)
    accelerated = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index) if on_gpu else None
    return Gallery(manifest, entries, index, accelerated)


def _read_entries(file: Path) -> tuple[GalleryEntry, ...]:
    try:
        return msgspec.convert(parquet.read_table(file).to_pylist(), tuple[GalleryEntry, ...])
    except (pyarrow.ArrowException, msgspec.ValidationError, OSError) as error:
        raise ArtifactError(f"{file} does not hold a gallery's entries: {error}") from error


def _read_index(file: Path) -> Any:
    try:
        return faiss.read_index(str(file))
    except RuntimeError as error:
        raise ArtifactError(f"{file} is not an index that FAISS reads; build the gallery again.") from error
