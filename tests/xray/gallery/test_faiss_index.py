"""FAISS finds what a plain matrix product finds, whatever the filter; the GPU is a fake."""

import threading
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest

from xray.gallery import faiss_index
from xray.gallery.faiss_index import MAX_GPU_DEPTH, FaissIndex

COUNT, DIMENSION, DEPTH = 3000, 96, 10


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit(np.random.default_rng(0).normal(size=(COUNT, DIMENSION)))


@pytest.fixture(scope="module")
def index(vectors: np.ndarray) -> FaissIndex:
    return FaissIndex(vectors)


def brute_force(vectors: np.ndarray, query: np.ndarray, depth: int, allowed: np.ndarray) -> np.ndarray:
    products = np.where(allowed, vectors @ query, -np.inf)
    return np.lexsort((np.arange(len(vectors)), -products))[:depth]


@pytest.mark.parametrize("share", [None, 0.9, 0.5, 0.01])
def test_rows_are_those_of_a_matrix_product(index: FaissIndex, vectors: np.ndarray, share: float | None) -> None:
    rng = np.random.default_rng(1)
    for query in unit(rng.normal(size=(50, DIMENSION))):
        allowed = None if share is None else rng.random(COUNT) < share
        everything = np.ones(COUNT, bool) if allowed is None else allowed
        products, rows = index.search(query, DEPTH, allowed)
        assert rows.tolist() == brute_force(vectors, query, DEPTH, everything).tolist()
        assert products == pytest.approx(vectors[rows] @ query, abs=1e-6)


def test_all_vectors_can_be_found_and_read_back(index: FaissIndex, vectors: np.ndarray) -> None:
    _, rows = index.search(vectors[0], COUNT)
    assert sorted(rows) == list(range(COUNT))
    assert (index.vectors(rows) == vectors[rows]).all()
    assert (index.memory_bytes, index.gpu_memory_bytes) == (vectors.nbytes, 0)


def test_two_threads_at_once_find_what_one_finds(index: FaissIndex, vectors: np.ndarray) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda query: index.search(query, DEPTH)[1].tolist(), vectors[:400]))
    assert found == [index.search(query, DEPTH)[1].tolist() for query in vectors[:400]]


class FakeGpuIndex:
    """Takes no filter and remembers who searched."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors, self.threads = vectors, [threading.get_ident()]

    def search(self, queries: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        assert depth <= MAX_GPU_DEPTH
        self.threads.append(threading.get_ident())
        products = queries @ self.vectors.T
        rows = np.argsort(-products, axis=1)[:, :depth]
        return np.take_along_axis(products, rows, axis=1), rows


def test_gpu_gets_the_queries_without_a_filter_from_one_thread(
    index: FaissIndex, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[FakeGpuIndex] = []

    def build(vectors: np.ndarray) -> FakeGpuIndex:
        built.append(FakeGpuIndex(vectors))
        return built[0]

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss_index, "_build_gpu_index", build)
    on_gpu = FaissIndex(vectors, on_gpu=True)
    half = np.arange(COUNT) % 2 == 0
    for depth, allowed in ((DEPTH, None), (DEPTH, half), (MAX_GPU_DEPTH + 1, None)):
        found = on_gpu.search(vectors[0], depth, allowed)[1]
        assert found.tolist() == index.search(vectors[0], depth, allowed)[1].tolist()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda query: on_gpu.search(query, DEPTH), vectors[:50]))
    assert len(built[0].threads) == 1 + 1 + 50
    assert len({*built[0].threads, threading.get_ident()}) == 2
    assert on_gpu.gpu_memory_bytes > vectors.nbytes


def test_gpu_that_faiss_does_not_see_leaves_the_search_to_the_cpu(
    vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    index = FaissIndex(vectors, on_gpu=True)
    assert "FAISS sees no GPU" in caplog.text
    assert index.search(vectors[7], 1)[1].tolist() == [7]
    assert index.gpu_memory_bytes == 0
