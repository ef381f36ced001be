"""A query's embedding in, its nearest neighbors among those of a dataset out.

They are those of a float64 search over the stored vectors, whose inner products are cosines because they have length 1.

Legend: N entries, D embedding, K vector.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

import numpy as np
import numpy.typing as npt

from xray.errors import InputError
from xray.gallery.accelerator import Accelerator
from xray.gallery.files import GPU_SCRATCH_BYTES, GalleryEntry, GalleryManifest
from xray.gallery.projection import Projection
from xray.gallery.scan import BoolArray, DoubleArray, EmbeddingArray, RowArray, Scan
from xray.images.radiograph import Radiograph
from xray.network.ood import Scope, appearance, farther
from xray.types import LABELS


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
        per_study: how many of one study at most, the nearest of them.
        below: similarity that a neighbor must not reach; what is too similar is the query over again.
    """

    k: int = 5
    body_part: str | None = None
    label: str | None = None
    exclude_study: str | None = None
    per_study: int | None = None
    below: float | None = None


@dataclass(frozen=True)
class Gallery:
    """Entries and what finds them; many threads may search at once.

    Attributes:
        scan: over the entries' vectors, in their order.
        accelerator: the same vectors on a GPU, if any.
        projection: from an embedding to such a vector; without one, embeddings themselves are searched.
    """

    manifest: GalleryManifest
    entries: tuple[GalleryEntry, ...]
    scan: Scan
    accelerator: Accelerator | None = None
    projection: Projection | None = None

    @property
    def memory_bytes(self) -> int:
        """Host memory of the embeddings and of what is kept to search them."""
        return self.scan.memory_bytes

    @property
    def gpu_memory_bytes(self) -> int:
        """Memory taken on the GPU; 0 without one."""
        return self.scan.vectors_ND.nbytes + GPU_SCRATCH_BYTES if self.accelerator else 0

    @cached_property
    def body_parts(self) -> tuple[str, ...]:
        return tuple(sorted({entry.body_part for entry in self.entries}))

    def search(self, embedding_D: EmbeddingArray, wanted: Wanted) -> list[Neighbor]:
        """The entries nearest to an embedding; see `nearest`."""
        return self.nearest(self.vector(embedding_D), wanted)

    def vector(self, embedding_D: EmbeddingArray) -> EmbeddingArray:
        """What of an embedding is compared with the entries', (K,) float32 of length 1."""
        embedding_D = np.asarray(embedding_D, np.float32)
        return embedding_D if self.projection is None else self.projection.vectors(embedding_D[np.newaxis])[0]

    def scope(self, radiograph: Radiograph, embedding_D: EmbeddingArray) -> Scope:
        """How far a radiograph is from what can be judged; a gallery without a projection knows but its appearance."""
        seen = appearance(radiograph)
        if self.projection is None or self.manifest.scope_limit is None:
            return seen
        residual = float(self.projection.residuals(np.asarray(embedding_D, np.float32)[np.newaxis])[0])
        return farther(seen, Scope(residual / self.manifest.scope_limit, "unlike the gallery"))

    def nearest(self, vector_K: EmbeddingArray, wanted: Wanted) -> list[Neighbor]:
        """The nearest entries, nearest first; fewer than k when the restrictions leave fewer.

        They are those of a float64 search over all vectors. Copies tie, and the first entry of equals comes first.

        Raises:
            InputError: the gallery has no such body part.
        """
        if wanted.body_part is not None:
            self.require_body_part(wanted.body_part)
        allowed_N = self._allowed(wanted)
        most = int(allowed_N.sum())
        reach = wanted.k
        while True:
            reach = min(reach, most)
            kept = self._kept(*self._nearest(vector_K, reach, allowed_N), wanted) if reach else []
            if len(kept) >= wanted.k or reach == most:
                return [replace(neighbor, rank=rank) for rank, neighbor in enumerate(kept[: wanted.k], start=1)]
            reach *= 2

    def require_body_part(self, body_part: str) -> None:
        """Raises: InputError: no entry shows it."""
        if body_part not in self.body_parts:
            raise InputError(f"No entry shows that body part; the gallery has {', '.join(self.body_parts)}.")

    def vectors(self, rows: RowArray) -> EmbeddingArray:
        """The stored vectors of some entries, (len(rows), K)."""
        return self.scan.vectors_ND[rows]

    def _nearest(self, query_D: EmbeddingArray, k: int, allowed_N: BoolArray) -> tuple[DoubleArray, RowArray]:
        if self.accelerator is not None and allowed_N.all():  # FAISS filters on the CPU only
            candidates = self.accelerator.candidates(query_D, k)
            if candidates is not None:
                return self.scan.best(query_D, k, candidates)
        return self.scan.search(query_D, k, allowed_N)

    def _kept(self, similarities: DoubleArray, rows: RowArray, wanted: Wanted) -> list[Neighbor]:
        """Those of the nearest that come neither too close nor too often."""
        seen: Counter[str] = Counter()
        kept = []
        for similarity, row in zip(similarities.tolist(), rows.tolist(), strict=True):
            entry = self.entries[row]
            if wanted.below is not None and similarity >= wanted.below:
                continue
            seen[entry.study_key] += 1
            if wanted.per_study is None or seen[entry.study_key] <= wanted.per_study:
                kept.append(Neighbor(0, entry, min(1.0, similarity)))
        return kept

    def _allowed(self, wanted: Wanted) -> BoolArray:
        allowed_N = np.ones(len(self.entries), bool)
        for column, value in (("body_part", wanted.body_part), ("label", wanted.label)):
            if value is not None:
                allowed_N &= self._with(column, value)
        if wanted.exclude_study is not None:
            allowed_N &= ~self._with("study_key", wanted.exclude_study)
        return allowed_N

    def _with(self, column: str, value: str) -> BoolArray:
        numbers, numbers_N = self._columns[column]
        return np.asarray(numbers_N == numbers.get(value, -1))

    @cached_property
    def _columns(self) -> dict[str, tuple[dict[str, int], npt.NDArray[np.int32]]]:
        """Of each column a number for every value, and every entry's; strings would take longer than the scan."""
        columns = {}
        for name in ("body_part", "label", "study_key"):
            numbers: dict[str, int] = {}
            of_entries = [numbers.setdefault(getattr(entry, name), len(numbers)) for entry in self.entries]
            columns[name] = numbers, np.array(of_entries, np.int32)
        return columns


def abnormal_share(neighbors: Sequence[Neighbor]) -> float | None:
    """A second opinion beside the network's probability; None where no neighbor has a label."""
    labels = [neighbor.entry.label for neighbor in neighbors if neighbor.entry.label in LABELS]
    return fmean(label == "abnormal" for label in labels) if labels else None
