"""Compares the gallery's search with matrix products in NumPy and torch, in one run: `python -m benchmarks.retrieval`.

The searches take turns on every query with one thread each, as in the service, where the network needs the other cores.
Times are also given as ratios to the two matrix products, which are comparable between machines, and every result is
compared with that of a float64 search. The realistic vectors lie between neighbors of the starter gallery; they are
closer together than those of a real gallery of that size, which makes the search harder.

Legend: S searches, N entries, Q queries, D numbers of a vector.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import tyro
from threadpoolctl import threadpool_limits

from benchmarks.markdown import table
from xray.artifact import read_manifest
from xray.gallery.entries import GalleryEntry
from xray.gallery.gallery import Gallery, GalleryManifest, NeighborQuery
from xray.gallery.storage import load_gallery, save_gallery
from xray.gallery.vector_index import BoolArray, DoubleArray, EmbeddingArray

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("XR_ELBOW", "XR_FINGER", "XR_FOREARM", "XR_HAND", "XR_HUMERUS", "XR_SHOULDER", "XR_WRIST")
LABELS = ("normal", "abnormal")
EMBEDDING = 1920
"""Length of DenseNet-201's embedding, which a gallery without a projection searches."""
NEIGHBORS = 8
"""Number of nearest vectors from which the other end of a realistic vector's line is drawn."""
NOISE = 0.02
"""Standard deviation of the noise on a realistic vector's numbers, relative to the numbers."""
MILLISECONDS = 1000

Search = Callable[[EmbeddingArray], Sequence[int]]
"""A function from a query (D,) to the rows of its nearest vectors."""


@dataclass(frozen=True)
class BenchOptions:
    """Measure `Gallery.search` on this machine's CPU, which should be idle otherwise."""

    gallery: Path = ROOT / "artifacts" / "starter" / "gallery"
    """Gallery whose vectors are used to make the realistic ones."""
    entries: int = 36_808
    """Number of entries; the default is the size of MURA's training split."""
    queries: int = 200
    k: int = 10
    seed: int = 0
    out: Path = ROOT / "benchmarks" / "retrieval.md"


def main() -> None:
    """Measure the searches of the retrieval benchmark; print the table and write it to a file."""
    options = tyro.cli(BenchOptions, prog="python -m benchmarks.retrieval")
    rows = []
    with threadpool_limits(limits=1):
        for name, vectors_ND, queries_QD in vector_sets(options):
            rows += measure(name, vectors_ND, queries_QD, options.k)
    lines = [
        f"{options.entries} entries, {options.k} neighbors, {options.queries} queries, one thread; "
        "exact: the rows and their order are those of the float64 search",
        "",
        *table(["vectors", "search", "p50", "p95", "p50 / NumPy", "p50 / torch", "exact"], rows),
    ]
    print("\n".join(lines))
    options.out.write_text("\n".join(["# Retrieval, side by side", "", *lines, ""]))


def vector_sets(options: BenchOptions) -> Iterator[tuple[str, EmbeddingArray, EmbeddingArray]]:
    """Yield the retrieval benchmark's sets of vectors: name, entries and queries; no query is an entry."""
    rng = np.random.default_rng(options.seed)
    manifest = read_manifest(options.gallery, GalleryManifest)
    stored_ND = load_gallery(options.gallery, manifest.checkpoint).vectors(rng.permutation(manifest.count))
    between_ND = between_neighbors(stored_ND[options.queries :], options.entries, rng)
    yield "realistic", between_ND, stored_ND[: options.queries]
    random_ND = unit(rng.standard_normal((options.entries + options.queries, EMBEDDING), dtype=np.float32))
    yield "random", random_ND[options.queries :], random_ND[: options.queries]


def between_neighbors(vectors_ND: EmbeddingArray, count: int, rng: np.random.Generator) -> EmbeddingArray:
    """Return vectors for the benchmark: points on lines from vectors to one of their nearest neighbors, with noise."""
    nearest_NK = np.argsort(-(vectors_ND @ vectors_ND.T), axis=1)[:, 1 : NEIGHBORS + 1]
    ends = rng.integers(len(vectors_ND), size=count)
    others = nearest_NK[ends, rng.integers(NEIGHBORS, size=count)]
    along_N1 = rng.random((count, 1), dtype=np.float32)
    points_ND = (1 - along_N1) * vectors_ND[ends] + along_N1 * vectors_ND[others]
    return unit(points_ND * (1 + NOISE * rng.standard_normal(points_ND.shape, dtype=np.float32)))


def unit(vectors_ND: npt.NDArray[np.floating]) -> EmbeddingArray:
    """Return the vectors of the retrieval benchmark, scaled to length 1."""
    return np.asarray(vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True), np.float32)


def measure(name: str, vectors_ND: EmbeddingArray, queries_QD: EmbeddingArray, k: int) -> list[list[str]]:
    """Measure every search on one set of vectors; return the table's rows: matrix products, then the gallery."""
    gallery = make_gallery(vectors_ND)
    everything = NeighborQuery(k)
    restricted = NeighborQuery(k, body_part="XR_HAND", label="abnormal", exclude_study=gallery.entries[3].study_key)
    vectors = torch.from_numpy(vectors_ND)
    searches: dict[str, tuple[Search, NeighborQuery]] = {
        "NumPy": (lambda query_D: nearest(vectors_ND @ query_D, k), everything),
        "torch": (lambda query_D: torch.mv(vectors, torch.from_numpy(query_D)).topk(k).indices.tolist(), everything),
        "Osteon": (lambda query_D: rows_of(gallery, query_D, everything), everything),
        "Osteon, restricted": (lambda query_D: rows_of(gallery, query_D, restricted), restricted),
    }
    seconds_SQ, answers_SQ = take_turns([search for search, _ in searches.values()], queries_QD)
    medians_S = np.median(seconds_SQ, axis=1)
    doubles_ND = vectors_ND.astype(np.float64)
    products_QN = np.stack([doubles_ND @ query_D.astype(np.float64) for query_D in queries_QD])
    rows = []
    for number, (search, (_, query)) in enumerate(searches.items()):
        allowed_N = np.array([is_allowed(entry, query) for entry in gallery.entries])
        expected = [nearest_allowed(products_N, k, allowed_N) for products_N in products_QN]
        agreed = sum(answer == right for answer, right in zip(answers_SQ[number], expected, strict=True))
        times = [f"{MILLISECONDS * float(np.quantile(seconds_SQ[number], share)):.2f} ms" for share in (0.5, 0.95)]
        ratios = [f"{medians_S[number] / medians_S[peer]:.2f}" for peer in (0, 1)]
        rows.append([name, search, *times, *ratios, f"{agreed} of {len(expected)}"])
        print(" | ".join(rows[-1]), flush=True)
    return rows


def make_gallery(vectors_ND: EmbeddingArray) -> Gallery:
    """Return a gallery to measure: these vectors, three to a study and a fifth abnormal, loaded from a folder."""
    entries = [
        GalleryEntry(f"{row}.png", PARTS[row // 3 % 7], f"patient{row // 3:05d}", "study1", LABELS[row % 5 == 0])
        for row in range(len(vectors_ND))
    ]
    manifest = GalleryManifest("", "Drawn", "train", "all", vectors_ND.shape[1], len(entries))
    with tempfile.TemporaryDirectory() as folder:
        save_gallery(Path(folder) / "gallery", manifest, entries, vectors_ND)
        return load_gallery(Path(folder) / "gallery", manifest.checkpoint)


def is_allowed(entry: GalleryEntry, query: NeighborQuery) -> bool:
    """Return whether the restrictions of a query allow an entry in the rows that the retrieval benchmark expects."""
    return (
        query.body_part in (None, entry.body_part)
        and query.label in (None, entry.label)
        and query.exclude_study != entry.study_key
    )


def nearest(products_N: EmbeddingArray, k: int) -> list[int]:
    """Return the rows that NumPy's search finds: those of the k largest products, largest first."""
    rows = np.argpartition(-products_N, k)[:k]
    return [int(row) for row in rows[np.argsort(-products_N[rows])]]


def nearest_allowed(products_N: DoubleArray, k: int, allowed_N: BoolArray) -> list[int]:
    """Return the rows that the retrieval benchmark expects; of equal products, the lower row comes first."""
    return [int(row) for row in np.argsort(np.where(allowed_N, -products_N, np.inf), kind="stable")[:k]]


def rows_of(gallery: Gallery, query_D: EmbeddingArray, query: NeighborQuery) -> list[int]:
    """Return the rows of the neighbors that the gallery finds, to compare them with the matrix products' rows."""
    return [int(neighbor.entry.path.removesuffix(".png")) for neighbor in gallery.search(query_D, query)]


def take_turns(searches: Sequence[Search], queries_QD: EmbeddingArray) -> tuple[DoubleArray, list[list[Sequence[int]]]]:
    """Let the compared searches take turns on every query; return the seconds (S, Q) and the rows found."""
    for search in searches:
        search(queries_QD[0])  # the first search of a process is slower
    seconds_SQ = np.empty((len(searches), len(queries_QD)))
    answers_SQ: list[list[Sequence[int]]] = [[] for _ in searches]
    for number, query_D in enumerate(queries_QD):
        for turn, search in enumerate(searches):
            started = time.perf_counter()
            rows = search(query_D)
            seconds_SQ[turn, number] = time.perf_counter() - started
            answers_SQ[turn].append(rows)
    return seconds_SQ, answers_SQ


if __name__ == "__main__":
    main()
