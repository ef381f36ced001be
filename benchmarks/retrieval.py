"""`python -m benchmarks.retrieval`: our search beside FAISS's flat index and a float64 NumPy search, in one run.

Times are given as ratios to those peers, so that they mean the same on another machine, and every answer of ours is
compared with the float64 search. The realistic vectors lie between neighbors of the starter gallery, denser than any
real gallery of that size, which makes them hard to tell apart.

Legend: N entries, Q queries, D embedding.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import tyro

from benchmarks.markdown import table
from xray.artifact import read_manifest
from xray.gallery.files import GalleryEntry, GalleryManifest
from xray.gallery.gallery import Gallery, Wanted
from xray.gallery.scan import DoubleArray, EmbeddingArray
from xray.gallery.storage import load_gallery, save_gallery

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("XR_ELBOW", "XR_FINGER", "XR_FOREARM", "XR_HAND", "XR_HUMERUS", "XR_SHOULDER", "XR_WRIST")
LABELS = ("normal", "abnormal")
EMBEDDING = 1920
"""Numbers of DenseNet-201's embedding, which a gallery without projection searches."""
NEIGHBORS = 8
"""Of which one gives the other end of the line on which a realistic vector lies."""
NOISE = 0.02
"""Standard deviation of a realistic vector's numbers, relative to themselves."""
MILLISECONDS = 1000


@dataclass(frozen=True)
class BenchOptions:
    """Measure `Gallery.search` on this machine's CPU; leave it otherwise idle."""

    gallery: Path = ROOT / "artifacts" / "starter" / "gallery"
    """Whose vectors the realistic ones are made of."""
    entries: int = 36_808
    """As many radiographs as MURA's training split has."""
    queries: int = 200
    k: int = 10
    seed: int = 0
    out: Path = ROOT / "benchmarks" / "retrieval.md"


def main() -> None:
    options = tyro.cli(BenchOptions, prog="python -m benchmarks.retrieval")
    rows = []
    for name, vectors_ND, queries_QD in vector_sets(options):
        rows += rows_of(name, vectors_ND, queries_QD, options.k)
    lines = [
        f"{options.entries} entries, {options.k} neighbors, {options.queries} queries, {os.cpu_count()} cores; "
        "exact: the rows and their order are those of the float64 search",
        "",
        *table(["vectors", "search", "p50", "p95", "p50 / FAISS", "p50 / float64", "exact"], rows),
    ]
    print("\n".join(lines))
    options.out.write_text("\n".join(["# Retrieval, side by side", "", *lines, ""]))


def vector_sets(options: BenchOptions) -> Iterator[tuple[str, EmbeddingArray, EmbeddingArray]]:
    """Name, entries and queries; no query is an entry."""
    rng = np.random.default_rng(options.seed)
    manifest = read_manifest(options.gallery, GalleryManifest)
    stored_ND = load_gallery(options.gallery, manifest.checkpoint).vectors(rng.permutation(manifest.count))
    between_ND = between_neighbors(stored_ND[options.queries :], options.entries, rng)
    yield "realistic", between_ND, stored_ND[: options.queries]
    random_ND = unit(rng.standard_normal((options.entries + options.queries, EMBEDDING), dtype=np.float32))
    yield "random", random_ND[options.queries :], random_ND[: options.queries]


def between_neighbors(vectors_ND: EmbeddingArray, count: int, rng: np.random.Generator) -> EmbeddingArray:
    """Points on the lines from vectors to one of their nearest, with noise."""
    nearest_NK = np.argsort(-(vectors_ND @ vectors_ND.T), axis=1)[:, 1 : NEIGHBORS + 1]
    ends = rng.integers(len(vectors_ND), size=count)
    others = nearest_NK[ends, rng.integers(NEIGHBORS, size=count)]
    along_N1 = rng.random((count, 1), dtype=np.float32)
    points_ND = (1 - along_N1) * vectors_ND[ends] + along_N1 * vectors_ND[others]
    return unit(points_ND * (1 + NOISE * rng.standard_normal(points_ND.shape, dtype=np.float32)))


def unit(vectors_ND: npt.NDArray[np.floating]) -> EmbeddingArray:
    return np.asarray(vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True), np.float32)


def rows_of(name: str, vectors_ND: EmbeddingArray, queries_QD: EmbeddingArray, k: int) -> list[list[str]]:
    """The table's rows on one set of vectors: the peers, then ours."""
    flat = faiss.IndexFlatIP(vectors_ND.shape[1])
    flat.add(vectors_ND)
    doubles_ND = vectors_ND.astype(np.float64)
    gallery = saved_and_loaded(vectors_ND)
    restricted = Wanted(k, body_part="XR_HAND", label="abnormal", exclude_study=gallery.entries[3].study_key)
    searches: dict[str, tuple[Callable[[EmbeddingArray], Sequence[int]], Wanted, int]] = {
        "FAISS IndexFlatIP": (lambda query_D: flat.search(query_D[np.newaxis], k)[1][0].tolist(), Wanted(k), 1),
        "NumPy float64": (lambda query_D: nearest(doubles_ND @ query_D.astype(np.float64), k), Wanted(k), 1),
        "Osteon": (lambda query_D: found(gallery, query_D, Wanted(k)), Wanted(k), 1),
        "Osteon, restricted": (lambda query_D: found(gallery, query_D, restricted), restricted, 1),
        "Osteon, two at a time": (lambda query_D: found(gallery, query_D, Wanted(k)), Wanted(k), 2),
    }
    similarities_QN = np.stack([doubles_ND @ query_D.astype(np.float64) for query_D in queries_QD])
    medians, rows = [], []
    for search, (rows_of_query, wanted, threads) in searches.items():
        seconds_Q, answers = timed(rows_of_query, queries_QD, threads)
        excluded_N = ~np.array([is_wanted(entry, wanted) for entry in gallery.entries])
        expected = [nearest(np.where(excluded_N, -np.inf, each_N), k) for each_N in similarities_QN]
        agreed = sum(answer == right for answer, right in zip(answers, expected, strict=True))
        medians.append(float(np.median(seconds_Q)))
        rows.append([name, search, *cells(seconds_Q, medians), f"{agreed} of {len(answers)}"])
        print(" | ".join(rows[-1]), flush=True)
    return rows


def saved_and_loaded(vectors_ND: EmbeddingArray) -> Gallery:
    """A gallery of these vectors, three to a study and a fifth of them abnormal."""
    entries = [
        GalleryEntry(f"{row}.png", PARTS[row // 3 % 7], f"patient{row // 3:05d}", "study1", LABELS[row % 5 == 0])
        for row in range(len(vectors_ND))
    ]
    manifest = GalleryManifest("", "Drawn", "train", "all", vectors_ND.shape[1], len(entries))
    with tempfile.TemporaryDirectory() as folder:
        save_gallery(Path(folder) / "gallery", manifest, entries, vectors_ND)
        return load_gallery(Path(folder) / "gallery", manifest.checkpoint)


def is_wanted(entry: GalleryEntry, wanted: Wanted) -> bool:
    return (
        wanted.body_part in (None, entry.body_part)
        and wanted.label in (None, entry.label)
        and wanted.exclude_study != entry.study_key
    )


def nearest(similarities_N: DoubleArray, k: int) -> list[int]:
    return [int(row) for row in np.argsort(-similarities_N, kind="stable")[:k]]


def found(gallery: Gallery, query_D: EmbeddingArray, wanted: Wanted) -> list[int]:
    return [int(neighbor.entry.path.removesuffix(".png")) for neighbor in gallery.search(query_D, wanted)]


def timed(
    search: Callable[[EmbeddingArray], Sequence[int]], queries_QD: EmbeddingArray, threads: int
) -> tuple[DoubleArray, list[Sequence[int]]]:
    """Seconds of each search, and the rows it found."""

    def one(query_D: EmbeddingArray) -> tuple[float, Sequence[int]]:
        started = time.perf_counter()
        rows = search(query_D)
        return time.perf_counter() - started, rows

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, queries_QD[: 2 * threads]))  # a thread's first search makes its team of OpenMP threads
        outcomes = list(pool.map(one, queries_QD))
    return np.array([seconds for seconds, _ in outcomes]), [rows for _, rows in outcomes]


def cells(seconds_Q: DoubleArray, medians: Sequence[float]) -> list[str]:
    """p50, p95, and the median as a share of the two peers', which come first; a dash where there is none yet."""
    median, late = (f"{MILLISECONDS * float(np.quantile(seconds_Q, share)):.2f} ms" for share in (0.5, 0.95))
    return [median, late, *(f"{medians[-1] / medians[peer]:.2f}" if len(medians) > peer else "-" for peer in (0, 1))]


if __name__ == "__main__":
    main()
