"""The neighbors found are those of a plain matrix product, in its order."""

import io
from pathlib import Path
from shutil import copytree

import msgspec
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from xray.artifact import MANIFEST, sha256
from xray.errors import ArtifactError, InputError
from xray.gallery import ENTRIES, INDEX, Gallery, GalleryEntry, GalleryManifest, Wanted, load_gallery, save_gallery

COUNT, DIMENSION = 300, 24
PARTS = ("XR_ELBOW", "XR_HAND", "XR_WRIST")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vectors = np.random.default_rng(0).normal(size=(COUNT, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
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


def brute_force(gallery: Gallery, query_D: np.ndarray, wanted: Wanted) -> list[str]:
    """The same answer without FAISS, in float64."""
    similarities_N = gallery.embeddings(np.arange(COUNT)).astype(np.float64) @ query_D
    ranked = [gallery.entries[row] for row in np.argsort(-similarities_N)]
    kept = [
        entry.path
        for entry in ranked
        if wanted.body_part in (None, entry.body_part)
        and wanted.label in (None, entry.label)
        and wanted.exclude_study != entry.study_key
    ]
    return kept[: wanted.k]


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(k=10),
        Wanted(k=10, body_part="XR_HAND"),
        Wanted(k=10, label="abnormal"),
        Wanted(k=10, body_part="XR_WRIST", label="normal", exclude_study="XR_WRIST/patient00003/study1"),
        Wanted(k=COUNT * 2),
        Wanted(k=COUNT, body_part="XR_ELBOW"),
    ],
)
def test_neighbors_equal_a_brute_force_search(gallery: Gallery, wanted: Wanted) -> None:
    for query_D in np.random.default_rng(1).normal(size=(20, DIMENSION)):
        query_D /= np.linalg.norm(query_D)
        found = gallery.search(query_D.astype(np.float32), wanted)
        assert [neighbor.entry.path for neighbor in found] == brute_force(gallery, query_D, wanted)
        assert [neighbor.rank for neighbor in found] == list(range(1, len(found) + 1))


def test_every_entry_finds_itself_first(gallery: Gallery) -> None:
    for row, vector in enumerate(gallery.embeddings(np.arange(COUNT))):
        nearest = gallery.search(vector, Wanted(k=1))[0]
        assert nearest.entry == gallery.entries[row]
        assert nearest.similarity == pytest.approx(1, abs=1e-3)


def test_radiograph_itself_outdoes_its_near_copies_and_the_first_of_equals_comes_first(tmp_path: Path) -> None:
    vector = np.random.default_rng(2).normal(size=DIMENSION)
    vectors = np.stack([vector + 2e-3 * step for step in np.random.default_rng(3).normal(size=(50, DIMENSION))])
    vectors[40] = vectors[7]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    entries = [GalleryEntry(f"image{row}.png", "XR_HAND", "patient1", "study1", "normal") for row in range(50)]
    save_gallery(tmp_path / "near", GalleryManifest("0", "Drawn", "train", "all", DIMENSION, 50), entries, vectors)
    near = load_gallery(tmp_path / "near", "0")
    found = [near.search(vector, Wanted(k=1))[0].entry.path for vector in vectors]
    assert found == [f"image{7 if row == 40 else row}.png" for row in range(50)]


def test_excluded_study_is_left_out_with_all_its_views(gallery: Gallery) -> None:
    vector, entry = gallery.embeddings(np.array([8]))[0], gallery.entries[8]
    found = gallery.search(vector, Wanted(k=COUNT, exclude_study=entry.study_key))
    left_out = {other.path for other in gallery.entries if other.study_key == entry.study_key}
    assert entry.path in left_out
    assert {neighbor.entry.path for neighbor in found} == {other.path for other in gallery.entries} - left_out


def test_unknown_body_part_is_refused_with_those_there_are(gallery: Gallery) -> None:
    with pytest.raises(InputError, match="XR_ELBOW, XR_HAND, XR_WRIST"):
        gallery.search(np.zeros(DIMENSION, np.float32), Wanted(body_part="XR_SKULL"))


def test_restrictions_that_leave_nothing_find_nothing(gallery: Gallery) -> None:
    only_normal = [entry for entry in gallery.entries if entry.label == "normal"]
    one_study = Gallery(gallery.manifest, gallery.entries, gallery.index)
    assert len(one_study.search(np.zeros(DIMENSION, np.float32), Wanted(k=COUNT, label="normal"))) == len(only_normal)
    assert one_study.search(np.zeros(DIMENSION, np.float32), Wanted(label="unheard of")) == []


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and its checksum, as only a mistaken writer would."""
    (folder / name).write_bytes(content)
    manifest = msgspec.json.decode((folder / MANIFEST).read_bytes())
    manifest["checksums"][name] = sha256(folder / name)
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))


def parquet_bytes(rows: list[dict[str, object]]) -> bytes:
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


def test_gallery_of_another_checkpoint_is_refused(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="built with checkpoint 0123456789ab, not ba9876543210"):
        load_gallery(folder, "ba9876543210")
