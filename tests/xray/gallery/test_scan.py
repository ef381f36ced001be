"""The rows found are those of a float64 search, whatever the vectors are like and however far int8 is off."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController

from xray.gallery import int8_codes
from xray.gallery.int8_codes import AXES, Int8Codes
from xray.gallery.scan import Scan

DIMENSION = 96
K = 10


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def scattered(count: int, rng: np.random.Generator) -> np.ndarray:
    return unit(rng.normal(size=(count, DIMENSION)))


def concentrated(count: int, rng: np.random.Generator) -> np.ndarray:
    """Non-negative and much alike, as embeddings of radiographs are."""
    return unit(np.maximum(0, 1 + 0.3 * rng.normal(size=(count, DIMENSION))))


def nearly_equal(count: int, rng: np.random.Generator) -> np.ndarray:
    """One number is 1 or -1 and all others are less than a step of int8 beside it: few points, as the scan sees them.

    Which number it is differs more than the scan's axes can tell.
    """
    vectors = 1e-3 * rng.normal(size=(count, DIMENSION))
    vectors[np.arange(count), rng.integers(2 * AXES, size=count)] = rng.choice([-1, 1], count)
    return unit(vectors)


def tied(count: int, rng: np.random.Generator) -> np.ndarray:
    """Few directions, many copies, and sums that float64 holds without rounding: a tie is a tie in any order."""
    return rng.integers(-3, 4, size=(7, DIMENSION)).astype(np.float32)[rng.integers(7, size=count)] / 4


def of_many_lengths(count: int, rng: np.random.Generator) -> np.ndarray:
    return scattered(count, rng) * np.geomspace(1e-6, 1e3, count, dtype=np.float32)[:, np.newaxis]


def float64_search(vectors: np.ndarray, query: np.ndarray, k: int, allowed: np.ndarray) -> np.ndarray:
    products = vectors.astype(np.float64) @ query.astype(np.float64)
    rows = np.lexsort((np.arange(len(vectors)), -products))
    return rows[allowed[rows]][:k]


KINDS = [scattered, concentrated, nearly_equal, tied, of_many_lengths]


def saturating_products(codes: np.ndarray, code: np.ndarray) -> np.ndarray:
    """What oneDNN computes without VNNI: codes shifted to be positive, pairs of products added in int16."""
    pairs = ((codes.astype(np.int32) + 128) * code).reshape(len(codes), -1, 2).sum(2)
    return pairs.clip(-(2**15), 2**15 - 1).sum(1, dtype=np.int32) - 128 * code.sum(dtype=np.int32)


def exact_products(codes: np.ndarray, code: np.ndarray) -> np.ndarray:
    """What it computes with VNNI."""
    return codes.astype(np.int32) @ code.astype(np.int32)


def coded(vectors: np.ndarray) -> Scan:
    return replace(Scan.over(vectors), codes=Int8Codes.of(vectors))


def plain(vectors: np.ndarray) -> Scan:
    return replace(Scan.over(vectors), codes=None)


@pytest.fixture(params=[coded, plain])
def scan_over(request: pytest.FixtureRequest, vnni: None) -> Callable[[np.ndarray], Scan]:
    """By int8, as where the processor has VNNI, or by float32."""
    return request.param


@pytest.fixture
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_codes, "_int8_products", exact_products)


def test_scan_takes_the_faster_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = scattered(500, np.random.default_rng(0))
    for seconds_coded, seconds_plain in ((1.0, 2.0), (2.0, 1.0)):
        seconds = {True: seconds_coded, False: seconds_plain}
        monkeypatch.setattr(Scan, "seconds", lambda scan, seconds=seconds: seconds[scan.codes is not None])
        monkeypatch.setattr(int8_codes, "_int8_products", exact_products)
        assert (Scan.over(vectors).codes is not None) == (seconds_coded < seconds_plain)
        monkeypatch.setattr(int8_codes, "_int8_products", saturating_products)
        assert Scan.over(vectors).codes is None


def test_processors_own_products_are_exact_or_not_used() -> None:
    codes = Int8Codes.of(scattered(500, np.random.default_rng(0)))
    if codes is not None:
        code = codes.rounded.codes_ND[7]
        found = int8_codes._int8_products(codes.rounded.codes_ND, code)
        assert (found == exact_products(codes.rounded.codes_ND, code)).all()


@pytest.mark.parametrize("count", [1, 2, 11, 3000])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_a_float64_search(
    kind: Callable[..., np.ndarray], count: int, scan_over: Callable[[np.ndarray], Scan]
) -> None:
    rng = np.random.default_rng(0)
    vectors = kind(count, rng)
    scan = scan_over(vectors)
    for query in [*kind(20, np.random.default_rng(1)), *vectors[:5], *scattered(5, rng), np.zeros_like(vectors[0])]:
        allowed = rng.random(count) < rng.choice([0.1, 1.1])
        allowed[rng.integers(count)] = True
        k = min(K, int(allowed.sum()))
        products, rows = scan.search(query, k, allowed)
        assert rows.tolist() == float64_search(vectors, query, k, allowed).tolist()
        assert products == pytest.approx(vectors[rows].astype(np.float64) @ query.astype(np.float64), abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_no_product_lies_outside_its_bound(
    kind: Callable[..., np.ndarray], scan_over: Callable[[np.ndarray], Scan]
) -> None:
    vectors = kind(2000, np.random.default_rng(0))
    scan = scan_over(vectors)
    for query in kind(20, np.random.default_rng(1)):
        estimates, errors = scan.bounds(query)
        assert (np.abs(estimates - vectors.astype(np.float64) @ query) <= errors).all()


@pytest.mark.usefixtures("vnni")
def test_bound_meets_the_products_that_are_worst_for_it() -> None:
    """A query along an entry's own remainder is as far off as the bound says, and no farther."""
    vectors = concentrated(500, np.random.default_rng(0))
    scan = coded(vectors)
    known = scan.codes
    inside = known.center_D + known.coordinates_NA @ known.axes_AD
    remainders = vectors - inside - known.rounded.scales_N[:, np.newaxis] * known.rounded.codes_ND.astype(np.float64)
    for row in range(0, 500, 25):
        query = (known.center_D + remainders[row] / np.linalg.norm(remainders[row])).astype(np.float32)
        estimates, errors = scan.bounds(query)
        off = np.abs(estimates - vectors.astype(np.float64) @ query)
        assert (off <= errors).all()
        assert off[row] > known.rounded.errors_N[row] / 2


@pytest.mark.usefixtures("vnni")
def test_near_ties_widen_the_candidates_until_the_answer_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, everything = nearly_equal(20_000, np.random.default_rng(0)), np.ones(20_000, bool)
    scan, queries = coded(vectors), vectors[:20]
    expected = [float64_search(vectors, query, K, everything).tolist() for query in queries]
    estimated = [np.argsort(-scan.bounds(query)[0])[:K].tolist() for query in queries]
    assert all(len(set(rough) & set(right)) < K / 2 for rough, right in zip(estimated, expected, strict=True))
    thresholds = [scan.products(query, np.array(rough)).min() for query, rough in zip(queries, estimated, strict=True)]
    unproven = [
        scan.bounds(query)[0][right].min() < threshold
        for query, right, threshold in zip(queries, expected, thresholds, strict=True)
    ]
    assert any(unproven)
    measured: list[int] = []
    best = Scan.best
    monkeypatch.setattr(Scan, "best", lambda self, q, k, rows: measured.append(len(rows)) or best(self, q, k, rows))
    assert [scan.search(query, K, everything)[1].tolist() for query in queries] == expected
    assert min(measured) > 20 * K


def test_search_takes_no_thread_from_others() -> None:
    """OpenMP counts threads for each thread that calls it, so that ours can ask for one."""
    scan = Scan.over(scattered(2000, np.random.default_rng(0)))

    def threads_after_a_search() -> list[int]:
        torch.get_num_threads()  # makes torch set this thread's number
        scan.search(scan.vectors_ND[0], K, np.ones(2000, bool))
        return [library["num_threads"] for library in ThreadpoolController().info()]

    with ThreadPoolExecutor(1) as pool:
        before = pool.submit(lambda: [library["num_threads"] for library in ThreadpoolController().info()]).result()
        assert pool.submit(threads_after_a_search).result() == before


def test_two_threads_at_once_find_what_one_finds() -> None:
    vectors, everything = concentrated(3000, np.random.default_rng(0)), np.ones(3000, bool)
    scan = Scan.over(vectors)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda query: scan.search(query, K, everything)[1].tolist(), vectors[:400]))
    assert found == [scan.search(query, K, everything)[1].tolist() for query in vectors[:400]]


@pytest.mark.usefixtures("vnni")
def test_memory_is_five_bytes_a_number_and_a_few_numbers_an_entry() -> None:
    scan = coded(scattered(1000, np.random.default_rng(0)))
    assert 5 * 1000 * DIMENSION < scan.memory_bytes < 5 * 1000 * DIMENSION + 1000 * 8 * (AXES + 6)
