"""The neighbors found are those of a plain matrix product, in its order."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import copytree

import msgspec
import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.conftest import STARTER
from xray.artifact import MANIFEST, read_manifest, sha256
from xray.errors import ArtifactError, InputError
from xray.gallery.entries import GalleryEntry
from xray.gallery.faiss_index import FaissIndex
from xray.gallery.gallery import SPARE_CANDIDATES, Gallery, GalleryManifest, NeighborQuery
from xray.gallery.storage import ENTRIES, INDEX, VECTOR_INDEXES, load_gallery, save_gallery
from xray.gallery.vector_index import StorageChoice
from xray.images.preprocess import PREPROCESS_VERSION

COUNT, DIMENSION = 300, 24
PARTS = ("XR_ELBOW", "XR_HAND", "XR_WRIST")


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(COUNT, DIMENSION)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def folder(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    entries = [
        GalleryEntry(
            f"Drawn/train/{PARTS[row % 3]}/patient{row // 4:05d}/study1/image{row}.png",
            PARTS[row % 3],
            f"patient{row // 4:05d}",
            "study1",
            ("normal", "abnormal")[row // 7 % 2],
        )
        for row in range(COUNT)
    ]
    out = tmp_path_factory.mktemp("gallery") / "gallery"
    save_gallery(out, GalleryManifest("0123456789ab", "Drawn", "train", "all", DIMENSION, COUNT), entries, vectors)
    return out


@pytest.fixture(scope="module")
def gallery(folder: Path) -> Gallery:
    return load_gallery(folder, "0123456789ab")


def brute_force(gallery: Gallery, vectors: np.ndarray, query_D: np.ndarray, query: NeighborQuery) -> list[str]:
    """The same answer in float64, over the vectors that the gallery was given."""
    similarities_N = vectors.astype(np.float64) @ query_D.astype(np.float64)
    limit = np.inf if query.below is None else query.below
    rows = [row for row in np.argsort(-similarities_N, kind="stable") if similarities_N[row] < limit]
    ranked = [gallery.entries[row] for row in rows]
    kept = [
        entry
        for entry in ranked
        if query.body_part in (None, entry.body_part)
        and query.label in (None, entry.label)
        and query.exclude_study != entry.study_key
    ]
    if query.per_study:
        studies = [entry.study_key for entry in kept]
        kept = [entry for n, entry in enumerate(kept) if studies[:n].count(studies[n]) < query.per_study]
    return [entry.path for entry in kept[: query.k]]


@pytest.mark.parametrize(
    "query",
    [
        NeighborQuery(k=10),
        NeighborQuery(k=10, body_part="XR_HAND"),
        NeighborQuery(k=10, label="abnormal"),
        NeighborQuery(k=10, body_part="XR_WRIST", label="normal", exclude_study="XR_WRIST/patient00003/study1"),
        NeighborQuery(k=COUNT * 2),
        NeighborQuery(k=COUNT, body_part="XR_ELBOW"),
        NeighborQuery(k=10, per_study=1),
        NeighborQuery(k=COUNT, label="normal", per_study=1),
        NeighborQuery(k=10, below=0.3),
        NeighborQuery(k=7, body_part="XR_HAND", per_study=1, below=0.25),
    ],
)
def test_neighbors_equal_a_brute_force_search(gallery: Gallery, vectors: np.ndarray, query: NeighborQuery) -> None:
    for query_D in np.random.default_rng(1).normal(size=(20, DIMENSION)):
        query_D = (query_D / np.linalg.norm(query_D)).astype(np.float32)
        found = gallery.search(query_D, query)
        assert [neighbor.entry.path for neighbor in found] == brute_force(gallery, vectors, query_D, query)
        assert [neighbor.rank for neighbor in found] == list(range(1, len(found) + 1))


PARTS_OR_NONE = st.sampled_from([None, *PARTS])
LABELS_OR_NONE = st.sampled_from([None, "normal", "abnormal"])
STUDIES_OR_NONE = st.sampled_from([None, "XR_ELBOW/patient00000/study1", "XR_HAND/patient00002/study1"])


def gallery_with_ties(seed: int, count: int) -> tuple[Gallery, np.ndarray]:
    """Few directions and many copies; multiples of 1/16, whose products neither float32 nor float64 rounds."""
    rng = np.random.default_rng(seed)
    vectors = (rng.integers(-3, 4, size=(5, 8)) / 16).astype(np.float32)[rng.integers(5, size=count)]
    entries = tuple(
        GalleryEntry(str(row), PARTS[row % 3], f"patient{row % 5:05d}", "study1", ("normal", "abnormal")[row % 2])
        for row in range(count)
    )
    return Gallery(GalleryManifest("", "Drawn", "train", "all", 8, count), entries, FaissIndex(vectors)), vectors


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(3, 120),
    query=st.builds(
        NeighborQuery,
        k=st.integers(1, 60),
        body_part=PARTS_OR_NONE,
        label=LABELS_OR_NONE,
        exclude_study=STUDIES_OR_NONE,
        per_study=st.sampled_from([None, 1, 3]),
        below=st.sampled_from([None, 0.0, 0.05]),
    ),
)
def test_of_tied_entries_the_first_comes_first_whatever_the_restrictions(
    seed: int, count: int, query: NeighborQuery
) -> None:
    gallery, vectors = gallery_with_ties(seed, count)
    vector = (np.random.default_rng(seed + 1).integers(-3, 4, size=8) / 16).astype(np.float32)
    products = vectors @ vector
    assert products.dtype == np.float32
    found = [neighbor.entry.path for neighbor in gallery.search_vector(vector, query)]
    assert found == brute_force(gallery, vectors, vector, query)


class NumpyIndex:
    """Another `VectorIndex`: the smallest that there can be."""

    def __init__(self, vectors: np.ndarray, on_gpu: bool) -> None:
        self.stored, self.memory_bytes, self.gpu_memory_bytes = vectors, vectors.nbytes, 0

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.stored[rows])

    def search(self, query: np.ndarray, depth: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        products = self.stored @ query if allowed is None else np.where(allowed, self.stored @ query, -np.inf)
        rows = np.argsort(-products)[:depth]
        return products[rows], rows


def test_another_index_needs_a_class_and_a_name_and_finds_the_same(
    gallery: Gallery, folder: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VECTOR_INDEXES, "numpy", NumpyIndex)
    other = load_gallery(folder, "0123456789ab", index="numpy")
    assert isinstance(other.index, NumpyIndex)
    for query in (NeighborQuery(k=10), NeighborQuery(k=10, body_part="XR_HAND", label="abnormal", per_study=1)):
        assert [other.search(each, query) for each in vectors[:20]] == [
            gallery.search(each, query) for each in vectors[:20]
        ]


def test_more_ties_than_spare_candidates_widen_the_search(vectors: np.ndarray) -> None:
    copies = np.repeat(vectors[:3], 2 * SPARE_CANDIDATES, axis=0)
    entries = tuple(
        GalleryEntry(str(row), "XR_HAND", f"patient{row}", "study1", "normal") for row in range(len(copies))
    )
    manifest = GalleryManifest("", "Drawn", "train", "all", DIMENSION, len(copies))
    found = Gallery(manifest, entries, FaissIndex(copies)).search_vector(vectors[1], NeighborQuery(k=5))
    assert [neighbor.entry.path for neighbor in found] == [str(2 * SPARE_CANDIDATES + place) for place in range(5)]


def test_stored_vectors_are_those_given_or_their_float16_rounding_of_length_1(
    folder: Path, gallery: Gallery, vectors: np.ndarray, tmp_path: Path
) -> None:
    everything = np.arange(COUNT)
    assert np.array_equal(gallery.vectors(everything), vectors)
    save_gallery(tmp_path / "half", gallery.manifest, gallery.entries, vectors, storage="float16")
    half = load_gallery(tmp_path / "half", "0123456789ab").vectors(everything)
    rounded = vectors.astype(np.float16).astype(np.float32)
    assert half == pytest.approx(rounded / np.linalg.norm(rounded, axis=1, keepdims=True), abs=5e-7)
    assert not np.array_equal(half, vectors)
    assert (tmp_path / "half" / INDEX).stat().st_size < 0.55 * (folder / INDEX).stat().st_size


def test_starter_gallery_is_read_as_float16_and_every_entry_or_its_first_copy_finds_itself() -> None:
    manifest = read_manifest(STARTER / "gallery", GalleryManifest)
    starter = load_gallery(STARTER / "gallery", manifest.checkpoint)
    vectors = starter.vectors(np.arange(manifest.count))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    first_of_copies = {vector.tobytes(): row for row, vector in reversed([*enumerate(vectors)])}
    for row in range(0, manifest.count, 29):
        nearest = starter.search_vector(vectors[row], NeighborQuery(k=1))[0]
        assert nearest.entry == starter.entries[first_of_copies[vectors[row].tobytes()]]
        assert nearest.similarity > 0.9999
    assert starter.memory_bytes >= 4 * vectors.size


def test_every_entry_finds_itself_first(gallery: Gallery) -> None:
    for row, vector in enumerate(gallery.vectors(np.arange(COUNT))):
        nearest = gallery.search(vector, NeighborQuery(k=1))[0]
        assert nearest.entry == gallery.entries[row]
        assert nearest.similarity == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_radiograph_itself_outdoes_its_near_copies_and_the_first_of_equals_comes_first(
    tmp_path: Path, storage: StorageChoice
) -> None:
    vector = np.random.default_rng(2).normal(size=DIMENSION)
    vectors = np.stack([vector + 2e-3 * step for step in np.random.default_rng(3).normal(size=(50, DIMENSION))])
    vectors[40] = vectors[7]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    entries = [GalleryEntry(f"image{row}.png", "XR_HAND", "patient1", "study1", "normal") for row in range(50)]
    manifest = GalleryManifest("0", "Drawn", "train", "all", DIMENSION, 50)
    save_gallery(tmp_path / "near", manifest, entries, vectors, storage)
    near = load_gallery(tmp_path / "near", "0")
    found = [near.search(vector, NeighborQuery(k=1))[0].entry.path for vector in vectors]
    assert found == [f"image{7 if row == 40 else row}.png" for row in range(50)]


def test_excluded_study_is_left_out_with_all_its_views(gallery: Gallery) -> None:
    vector, entry = gallery.vectors(np.array([8]))[0], gallery.entries[8]
    found = gallery.search(vector, NeighborQuery(k=COUNT, exclude_study=entry.study_key))
    left_out = {other.path for other in gallery.entries if other.study_key == entry.study_key}
    assert entry.path in left_out
    assert {neighbor.entry.path for neighbor in found} == {other.path for other in gallery.entries} - left_out


def test_unknown_body_part_is_refused_with_those_there_are(gallery: Gallery) -> None:
    with pytest.raises(InputError, match="XR_ELBOW, XR_HAND, XR_WRIST"):
        gallery.search(np.zeros(DIMENSION, np.float32), NeighborQuery(body_part="XR_SKULL"))


def test_restrictions_that_leave_nothing_find_nothing(gallery: Gallery) -> None:
    only_normal = [entry for entry in gallery.entries if entry.label == "normal"]
    assert len(gallery.search(np.zeros(DIMENSION, np.float32), NeighborQuery(k=COUNT, label="normal"))) == len(
        only_normal
    )
    assert gallery.search(np.zeros(DIMENSION, np.float32), NeighborQuery(label="unheard of")) == []


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and its checksum, as only a mistaken writer would."""
    (folder / name).write_bytes(content)
    manifest = msgspec.json.decode((folder / MANIFEST).read_bytes())
    manifest["checksums"][name] = sha256(folder / name)
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))


def parquet_bytes(rows: Sequence[Mapping[str, object]]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


ROW = {"path": "a.png", "body_part": "XR_HAND", "patient": "patient1", "study": "study1", "label": "normal"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (INDEX, b"no index"),
        (ENTRIES, b"no parquet"),
        (ENTRIES, parquet_bytes([ROW])),
        (ENTRIES, parquet_bytes([{"path": "a.png"}] * COUNT)),
        (ENTRIES, parquet_bytes([{**ROW, "body_part": None}] * COUNT)),
    ],
)
def test_gallery_whose_files_are_not_what_they_should_be_is_refused(
    folder: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    copy = copytree(folder, tmp_path / "copy")
    rewrite(copy, name, content)
    with pytest.raises(ArtifactError, match=r"index\.faiss|entries\.parquet|1 entries and 300 vectors"):
        load_gallery(copy, "0123456789ab")


@pytest.mark.parametrize("version", [PREPROCESS_VERSION - 1, PREPROCESS_VERSION + 1])
def test_gallery_of_other_canvases_is_refused_with_what_to_do(folder: Path, tmp_path: Path, version: int) -> None:
    copy = copytree(folder, tmp_path / "copy")
    manifest = json.loads((copy / MANIFEST).read_bytes())
    assert manifest["preprocess_version"] == PREPROCESS_VERSION
    (copy / MANIFEST).write_text(json.dumps(manifest | {"preprocess_version": version}))
    with pytest.raises(ArtifactError, match=rf"preprocessing {version}, not .*build it again with"):
        load_gallery(copy, "0123456789ab")


def test_gallery_from_before_its_canvases_were_recorded_is_refused_with_what_to_do(
    folder: Path, tmp_path: Path
) -> None:
    copy = copytree(folder, tmp_path / "copy")
    manifest = json.loads((copy / MANIFEST).read_bytes()) | {"schema_version": 2}
    del manifest["preprocess_version"]
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="schema 2 and this version reads 3; make the artifact again"):
        load_gallery(copy, "0123456789ab")


def test_gallery_of_another_checkpoint_is_refused(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="built with checkpoint 0123456789ab, not ba9876543210"):
        load_gallery(folder, "ba9876543210")
