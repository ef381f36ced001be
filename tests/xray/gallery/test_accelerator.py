"""One thread owns the GPU's index, and what it finds counts only when float32 can prove it; the index is a fake."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from xray.gallery.accelerator import MOST, SPARE, Accelerator
from xray.gallery.scan import Scan

COUNT, DIMENSION, K = 3000, 96, 10


class FakeIndex:
    """Searches in a given precision and remembers who asked."""

    def __init__(self, vectors: np.ndarray, precision: type) -> None:
        self.vectors, self.precision, self.threads = vectors, precision, {threading.get_ident()}

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self.threads.add(threading.get_ident())
        products = queries.astype(self.precision) @ self.vectors.astype(self.precision).T
        rows = np.argsort(-products, axis=1)[:, :k]
        return np.take_along_axis(products, rows, axis=1).astype(np.float32), rows


def embeddings(spread: float) -> np.ndarray:
    vectors = np.maximum(0, 1 + spread * np.random.default_rng(0).normal(size=(COUNT, DIMENSION)))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def scan() -> Scan:
    return Scan.over(embeddings(spread=0.3))


def test_candidates_hold_the_nearest(scan: Scan) -> None:
    accelerator = Accelerator(lambda: FakeIndex(scan.vectors_ND, np.float32), scan)
    for query in scan.vectors_ND[:50]:
        candidates = accelerator.candidates(query, K)
        assert candidates is not None
        assert len(candidates) == K + SPARE
        expected = scan.search(query, K, np.ones(COUNT, bool))[1]
        assert scan.best(query, K, candidates)[1].tolist() == expected.tolist()


def test_one_thread_builds_and_asks_the_index(scan: Scan) -> None:
    fake: list[FakeIndex] = []

    def build() -> FakeIndex:
        fake.append(FakeIndex(scan.vectors_ND, np.float32))
        return fake[0]

    accelerator = Accelerator(build, scan)
    with ThreadPoolExecutor(4) as pool:
        assert all(rows is not None for rows in pool.map(accelerator.candidates, scan.vectors_ND[:100], [K] * 100))
    assert len(fake) == len(fake[0].threads) == 1
    assert threading.get_ident() not in fake[0].threads


def test_more_near_ties_than_spares_prove_nothing() -> None:
    close = Scan.over(embeddings(spread=1e-6))
    accelerator = Accelerator(lambda: FakeIndex(close.vectors_ND, np.float32), close)
    assert accelerator.candidates(close.vectors_ND[0], K) is None


def test_arithmetic_coarser_than_float32_proves_nothing(scan: Scan) -> None:
    accelerator = Accelerator(lambda: FakeIndex(scan.vectors_ND, np.float16), scan)
    assert accelerator.candidates(scan.vectors_ND[0], K) is None


def test_all_entries_are_candidates_without_proof_and_too_many_are_none(scan: Scan) -> None:
    few = Scan.over(scan.vectors_ND[:20])
    accelerator = Accelerator(lambda: FakeIndex(few.vectors_ND, np.float32), few)
    assert sorted(accelerator.candidates(few.vectors_ND[0], 20)) == list(range(20))  # type: ignore[arg-type]
    many = Accelerator(lambda: FakeIndex(scan.vectors_ND, np.float32), scan)
    assert many.candidates(scan.vectors_ND[0], MOST) is None
