"""Finds the reference radiographs nearest to a query.

A `VectorIndex` proposes candidates by float32 inner products; the gallery ranks them in float64. The vectors have
length 1, so their inner products are cosines.

Legend: N entries, D numbers of an embedding, K numbers of a vector, R rows of entries.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean

import numpy as np
import numpy.typing as npt

from xray.errors import InputError
from xray.gallery.entries import GalleryEntry
from xray.gallery.projection import Projection
from xray.gallery.vector_index import BoolArray, DoubleArray, EmbeddingArray, RowArray, VectorIndex
from xray.images.preprocess import PREPROCESS_VERSION
from xray.types import LABELS

SCHEMA_VERSION = 3
SPARE_CANDIDATES = 22
"""Candidates beyond k, so that near ties and restrictions seldom need a second search; 32 candidates for k = 10."""
BLOCK_ROWS = 1024
"""Number of rows that are converted to float64 at a time: 16 MB for vectors of 1,920 numbers."""


@dataclass(frozen=True)
class GalleryManifest:
    """A gallery's manifest: which checkpoint can query the gallery, and how it was built.

    Attributes:
        checkpoint: ID of the checkpoint that made the embeddings; only this checkpoint can query the gallery.
        dataset, split: names of the indexed dataset and split.
        only: `abnormal` if normal radiographs were left out, otherwise `all`.
        unreadable: dataset paths of images that could not be decoded and are therefore missing.
        dimension: length K of the vectors.
        scope_limit: distance from the projection's space beyond which an embedding is out of scope. Only galleries
            of version 0.1 have it; now it is in the checkpoint.
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


@dataclass(frozen=True)
class Neighbor:
    """A gallery entry found by a search. `rank` counts from 1; `similarity` is the cosine, from -1 to 1."""

    rank: int
    entry: GalleryEntry
    similarity: float


@dataclass(frozen=True)
class NeighborQuery:
    """Restrictions on the neighbors that a gallery returns; None means no restriction.

    Attributes:
        k: maximum number of neighbors.
        body_part, label: body part and label that a neighbor must have.
        exclude_study: key of a study whose radiographs are left out, such as the query's own.
        per_study: maximum number of neighbors from one study; the nearest are kept.
        below: neighbors must be less similar than this, which leaves out near-duplicates of the query.
    """

    k: int = 5
    body_part: str | None = None
    label: str | None = None
    exclude_study: str | None = None
    per_study: int | None = None
    below: float | None = None


@dataclass(frozen=True)
class Gallery:
    """A gallery's entries and the index over their vectors; many threads may search at once.

    Attributes:
        index: index of the entries' vectors, in the order of the entries.
        projection: projection from an embedding to such a vector; None if the vectors are the embeddings.
    """

    manifest: GalleryManifest
    entries: tuple[GalleryEntry, ...]
    index: VectorIndex
    projection: Projection | None = None

    @property
    def memory_bytes(self) -> int:
        """Return the host memory of the gallery's index, in bytes."""
        return self.index.memory_bytes

    @property
    def gpu_memory_bytes(self) -> int:
        """Return the GPU memory of the gallery's index, in bytes; 0 without a GPU."""
        return self.index.gpu_memory_bytes

    @cached_property
    def body_parts(self) -> tuple[str, ...]:
        """Return the body parts of the gallery's entries, sorted."""
        return tuple(sorted({entry.body_part for entry in self.entries}))

    def search(self, embedding_D: EmbeddingArray, query: NeighborQuery) -> list[Neighbor]:
        """Return the gallery's entries nearest to an embedding; see `search_vector`."""
        return self.search_vector(self.project(embedding_D), query)

    def project(self, embedding_D: EmbeddingArray) -> EmbeddingArray:
        """Return an embedding's vector, (K,) float32 of length 1, to compare with those of the gallery's entries."""
        embedding_D = np.asarray(embedding_D, np.float32)
        return embedding_D if self.projection is None else self.projection.project(embedding_D[np.newaxis])[0]

    def search_vector(self, vector_K: EmbeddingArray, query: NeighborQuery) -> list[Neighbor]:
        """Return the gallery's entries nearest to a vector, nearest first; fewer than k if restrictions leave fewer.

        The result is that of a float64 search over all vectors. Entries with equal similarity are in gallery order.

        Raises:
            InputError: the gallery has no such body part.
        """
        if query.body_part is not None:
            self.require_body_part(query.body_part)
        allowed_N = self._allowed(query)
        max_depth = len(self.entries) if allowed_N is None else int(allowed_N.sum())
        if max_depth == 0:
            return []
        depth = query.k + SPARE_CANDIDATES
        while True:
            depth = min(depth, max_depth)
            similarities_R, rows_R, unseen = self._rank_candidates(vector_K, depth, allowed_N)
            neighbors = self._filter(similarities_R, rows_R, query)[: query.k]
            is_complete = len(neighbors) == query.k and neighbors[-1].similarity > unseen
            if is_complete or depth == max_depth:
                return [replace(neighbor, rank=rank) for rank, neighbor in enumerate(neighbors, start=1)]
            depth *= 2

    def require_body_part(self, body_part: str) -> None:
        """Check that the gallery has entries of a body part.

        Raises:
            InputError: it has none.
        """
        if body_part not in self.body_parts:
            raise InputError(f"No entry shows that body part; the gallery has {', '.join(self.body_parts)}.")

    def vectors(self, rows_R: RowArray) -> EmbeddingArray:
        """Return the vectors of some of the gallery's entries, as stored, (R, K)."""
        return self.index.vectors(rows_R)

    def _rank_candidates(
        self, vector_K: EmbeddingArray, depth: int, allowed_N: BoolArray | None
    ) -> tuple[DoubleArray, RowArray, float]:
        """Return float64 similarities and rows, nearest first, and a bound on the similarity of all other entries."""
        products_R, rows_R = self.index.search(vector_K, depth, allowed_N)
        # A float32 sum of K products, in any order, is off by less than K eps times both lengths.
        error = len(vector_K) * float(np.finfo(np.float32).eps) * float(np.linalg.norm(vector_K))
        similarities_R = self._similarities(vector_K, rows_R)
        nearest_first = np.lexsort((rows_R, -similarities_R))
        return similarities_R[nearest_first], rows_R[nearest_first], float(products_R[-1]) + error

    def _similarities(self, vector_K: EmbeddingArray, rows_R: RowArray) -> DoubleArray:
        # Not a matrix product, because BLAS sums rows in an order that depends on their place, so copies would not tie.
        blocks = np.split(rows_R, range(BLOCK_ROWS, len(rows_R), BLOCK_ROWS))
        vector_K = vector_K.astype(np.float64)
        return np.concatenate([np.vecdot(self.vectors(block).astype(np.float64), vector_K) for block in blocks])

    def _filter(self, similarities_R: DoubleArray, rows_R: RowArray, query: NeighborQuery) -> list[Neighbor]:
        """Drop candidates that are too similar or exceed `per_study`; ranks are not set yet."""
        seen: Counter[str] = Counter()
        neighbors = []
        for similarity, row in zip(similarities_R.tolist(), rows_R.tolist(), strict=True):
            entry = self.entries[row]
            if query.below is not None and similarity >= query.below:
                continue
            seen[entry.study_key] += 1
            if query.per_study is None or seen[entry.study_key] <= query.per_study:
                neighbors.append(Neighbor(0, entry, min(1.0, similarity)))
        return neighbors

    def _allowed(self, query: NeighborQuery) -> BoolArray | None:
        """Return which entries are allowed by body part, label and excluded study; None if all are."""
        masks = []
        if query.body_part is not None:
            masks.append(self._mask("body_part", query.body_part))
        if query.label is not None:
            masks.append(self._mask("label", query.label))
        if query.exclude_study is not None:
            masks.append(~self._mask("study_key", query.exclude_study))
        return np.logical_and.reduce(masks) if masks else None

    def _mask(self, attribute: str, value: str) -> BoolArray:
        codes, codes_N = self._codes[attribute]
        return np.asarray(codes_N == codes.get(value, -1))

    @cached_property
    def _codes(self) -> dict[str, tuple[dict[str, int], npt.NDArray[np.int32]]]:
        """Return, for each attribute, a code for every value and the code of every entry.

        Comparing the strings of all entries would take longer than the search.
        """
        columns = {}
        for attribute in ("body_part", "label", "study_key"):
            codes: dict[str, int] = {}
            codes_of_entries = [codes.setdefault(getattr(entry, attribute), len(codes)) for entry in self.entries]
            columns[attribute] = codes, np.array(codes_of_entries, np.int32)
        return columns


def abnormal_share(neighbors: Sequence[Neighbor]) -> float | None:
    """Return the abnormal share of a study's neighbors in the gallery, a second opinion; None if none has a label."""
    labels = [neighbor.entry.label for neighbor in neighbors if neighbor.entry.label in LABELS]
    return fmean(label == "abnormal" for label in labels) if labels else None
