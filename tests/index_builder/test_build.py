"""A gallery holds exactly the dataset's readable radiographs, whatever happened to its builder on the way."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import copytree

import cv2
import numpy as np
import pytest
import torch

from index_builder.build import SHARD_SIZE, BuildOptions, build
from index_builder.shards import Plan, Shard, ShardStore
from index_builder.verify import check_gallery, sample_rows
from tests.conftest import ROOT
from tests.phantoms import draw_phantom
from xray.artifact import read_manifest, sha256
from xray.engines.registry import load_engine
from xray.engines.torch_engine import TorchEngine
from xray.errors import ArtifactError, DatasetError, InputError, NoSpaceError
from xray.gallery.gallery import Gallery, GalleryManifest, NeighborQuery
from xray.gallery.storage import ENTRIES, INDEX, PROJECTION, load_gallery
from xray.gallery.vector_index import VectorIndex
from xray.images.decoding.decode import read_radiograph
from xray.images.preprocess import PREPROCESS_VERSION
from xray.mura.studies import read_mura, records_of
from xray.network.checkpoint import load_checkpoint, save_checkpoint
from xray.predictor import Predictor

pytestmark = pytest.mark.slow

RADIOGRAPHS = 2 * SHARD_SIZE + 20
"""Three shards, the last one not full."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every fourth study is abnormal; no CSV."""
    root = tmp_path_factory.mktemp("index") / "Phantoms"
    for number in range(RADIOGRAPHS):
        label = "positive" if number % 4 == 0 else "negative"
        folder = root / f"train/XR_HAND/patient{number:05d}/study1_{label}"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "image1.png"), draw_phantom(number, label == "positive", height=64, width=64))
    return root


@pytest.fixture
def options(tiny_checkpoint: Path, dataset: Path, tmp_path: Path) -> BuildOptions:
    return BuildOptions(tiny_checkpoint, dataset, tmp_path / "gallery", device="cpu")


@pytest.fixture(scope="module")
def unbroken(tiny_checkpoint: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "gallery"
    build(BuildOptions(tiny_checkpoint, dataset, out, device="cpu"))
    return out


def loaded(options: BuildOptions) -> Gallery:
    return load_gallery(options.out, load_checkpoint(options.checkpoint).manifest.id)


def store_folder(options: BuildOptions) -> Path:
    return options.out.with_name(f".{options.out.name}.building")


def start_and_kill_after(shards: int, options: BuildOptions) -> None:
    """SIGKILL once that many shards are finished."""
    flags = [f"--checkpoint={options.checkpoint}", f"--data={options.data}", f"--out={options.out}", "--device=cpu"]
    command = [sys.executable, "-m", "index_builder", "folder", *flags]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(store_folder(options).glob("*.safetensors"))) < shards:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)


def test_killed_builder_ends_with_the_unbroken_ones_files(options: BuildOptions, unbroken: Path) -> None:
    for shards in (1, 2):
        start_and_kill_after(shards, options)
        assert not options.out.exists()
    build(options)
    for name in (INDEX, ENTRIES, PROJECTION):
        assert sha256(options.out / name) == sha256(unbroken / name)
    assert not store_folder(options).exists()


def test_entries_are_the_datasets_radiographs_with_the_networks_embeddings(
    unbroken: Path, dataset: Path, tiny_checkpoint: Path
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    predictor = Predictor(checkpoint.manifest, load_engine(checkpoint, "cpu"))
    gallery = load_gallery(unbroken, checkpoint.manifest.id)
    records = records_of(read_mura(dataset, "train"))
    assert [entry.path for entry in gallery.entries] == [record.path for record in records]
    assert [entry.label for entry in gallery.entries] == [record.label for record in records]
    for row in (0, SHARD_SIZE, RADIOGRAPHS - 1):
        embedding_D = predictor.predict([read_radiograph(records[row].file)]).embedding_D
        assert gallery.vectors(np.array([row]))[0] @ gallery.project(embedding_D) == pytest.approx(1, abs=1e-4)
        assert gallery.search(embedding_D, NeighborQuery(k=1))[0].entry == gallery.entries[row]


def test_float32_gallery_holds_the_references_embeddings(options: BuildOptions, dataset: Path) -> None:
    build(dataclasses.replace(options, precision="float32", dimension=0))
    checkpoint = load_checkpoint(options.checkpoint)
    reference = Predictor(checkpoint.manifest, TorchEngine(checkpoint, torch.device("cpu")))
    embedding_D = reference.predict([read_radiograph(records_of(read_mura(dataset, "train"))[0].file)]).embedding_D
    assert loaded(options).vectors(np.array([0]))[0] == pytest.approx(embedding_D, abs=1e-5)


def test_only_abnormal_leaves_the_normal_ones_out(options: BuildOptions) -> None:
    manifest = build(dataclasses.replace(options, only="abnormal"))
    assert (manifest.only, manifest.count) == ("abnormal", RADIOGRAPHS // 4)
    assert {entry.label for entry in loaded(options).entries} == {"abnormal"}


def test_unreadable_radiographs_are_counted_named_and_left_out(
    options: BuildOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copytree(options.data, tmp_path / "Phantoms")
    damaged = records_of(read_mura(root, "train"))[3:140:68]
    for record in damaged:
        record.file.write_bytes(record.file.read_bytes()[:150])
    manifest = build(dataclasses.replace(options, data=root))
    assert manifest.count == RADIOGRAPHS - len(damaged)
    assert manifest.unreadable == tuple(record.path for record in damaged)
    printed = capsys.readouterr().out
    assert f"{len(damaged)} of {RADIOGRAPHS} images could not be read" in printed
    assert all(record.path in printed for record in damaged)
    assert {entry.path for entry in loaded(options).entries}.isdisjoint(manifest.unreadable)


def test_dataset_without_readable_or_abnormal_radiographs_is_refused(options: BuildOptions, tmp_path: Path) -> None:
    folder = tmp_path / "Bad/train/XR_HAND/patient00001/study1_negative"
    folder.mkdir(parents=True)
    (folder / "image1.png").write_bytes(b"no image")
    bad = dataclasses.replace(options, data=tmp_path / "Bad")
    with pytest.raises(DatasetError, match="None of the 1 images"):
        build(bad)
    with pytest.raises(DatasetError, match="no abnormal study"):
        build(dataclasses.replace(bad, only="abnormal"))
    assert not options.out.exists()


def test_unfinished_gallery_never_takes_in_another_checkpoints_embeddings(
    options: BuildOptions, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(options.checkpoint)
    save_checkpoint(tmp_path / "other", checkpoint, "float16")
    start_and_kill_after(1, options)
    with pytest.raises(InputError, match="unfinished gallery of another checkpoint"):
        build(dataclasses.replace(options, checkpoint=tmp_path / "other"))
    assert build(options).checkpoint == checkpoint.manifest.id


def test_shards_of_replaced_radiographs_are_made_again_and_the_others_kept(
    options: BuildOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copytree(options.data, tmp_path / "Phantoms")
    options = dataclasses.replace(options, data=root)
    records = records_of(read_mura(root, "train"))
    whole = records[3].file.read_bytes()
    records[3].file.write_bytes(whole[:150])
    start_and_kill_after(2, options)
    records[3].file.write_bytes(whole)
    manifest = build(options)
    assert (manifest.count, manifest.unreadable) == (RADIOGRAPHS, ())
    assert re.search(r"[12] of 3 shards are reused from a builder that was stopped", capsys.readouterr().out)


def test_replaced_radiograph_of_equal_size_and_time_is_embedded_again(options: BuildOptions, tmp_path: Path) -> None:
    root = copytree(options.data, tmp_path / "Phantoms")
    options = dataclasses.replace(options, data=root, dimension=0, precision="float32")
    file = records_of(read_mura(root, "train"))[0].file
    status, pixels = file.stat(), cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    uncompressed = [cv2.IMWRITE_PNG_COMPRESSION, 0]
    cv2.imwrite(str(file), pixels, uncompressed)
    size = file.stat().st_size
    start_and_kill_after(1, options)
    cv2.imwrite(str(file), cv2.rotate(pixels, cv2.ROTATE_180), uncompressed)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == size
    build(options)
    checkpoint = load_checkpoint(options.checkpoint)
    predictor = Predictor(checkpoint.manifest, load_engine(checkpoint, "cpu", "float32"))
    embedding_D = predictor.predict([read_radiograph(file)]).embedding_D
    assert loaded(options).vectors(np.array([0]))[0] == pytest.approx(embedding_D, abs=1e-4)


def test_shards_of_another_preprocessing_are_not_taken(
    store: ShardStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(0, Shard([], np.zeros((0, 0), np.float32), [], []))
    assert store.has(0, [])
    monkeypatch.setattr("index_builder.shards.PREPROCESS_VERSION", PREPROCESS_VERSION + 1)
    assert not store.has(0, [])


def test_patients_of_another_split_are_not_indexed_unasked(options: BuildOptions, tmp_path: Path) -> None:
    root = copytree(options.data, tmp_path / "Phantoms")
    copytree(root / "train/XR_HAND/patient00001", root / "valid/XR_HAND/patient00001")
    overlapping = dataclasses.replace(options, data=root)
    with pytest.raises(DatasetError, match=r"1 patients are in both train and valid"):
        build(overlapping)
    assert build(dataclasses.replace(overlapping, allow_overlap=True)).count == RADIOGRAPHS


def test_what_is_left_out_is_printed(options: BuildOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = copytree(options.data, tmp_path / "Phantoms")
    (root / "train/XR_HAND/patient00001/study1_negative/image2.tif").write_bytes(b"x")
    build(dataclasses.replace(options, data=root))
    assert f"Phantoms/train: {RADIOGRAPHS} images are read; left out: 1 .tif files" in capsys.readouterr().out


def test_full_disk_keeps_the_shards_and_a_later_run_goes_on(
    options: BuildOptions, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_it = dataclasses.replace(options, out=small_disk / "gallery")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_300_000))
    with pytest.raises(NoSpaceError, match=r"No space left on device: .* cannot be written"):
        build(on_it)
    assert not on_it.out.exists()
    assert [path.name for path in store_folder(on_it).glob("*.safetensors")] == ["00000.safetensors"]
    ballast.unlink()
    assert build(on_it).count == RADIOGRAPHS
    assert "1 of 3 shards are reused from a builder that was stopped" in capsys.readouterr().out


def test_former_gallery_serves_until_the_new_one_is_whole(options: BuildOptions, tiny_checkpoint: Path) -> None:
    build(dataclasses.replace(options, only="abnormal"))
    start_and_kill_after(1, options)
    assert read_manifest(options.out, GalleryManifest).only == "abnormal"
    assert len(loaded(options).entries) == RADIOGRAPHS // 4
    build(options)
    assert len(loaded(options).entries) == RADIOGRAPHS


class Shifted:
    """A fake index that leaves out the neighbor at one place."""

    def __init__(self, real: VectorIndex, place: int) -> None:
        self.real, self.place, self.vectors = real, place, real.vectors
        self.memory_bytes, self.gpu_memory_bytes = real.memory_bytes, real.gpu_memory_bytes

    def search(
        self, query_K: np.ndarray, depth: int, allowed_N: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        products, rows = self.real.search(query_K, depth + 1, allowed_N)
        return np.delete(products, self.place), np.delete(rows, self.place)


def test_self_check_catches_an_index_that_answers_wrongly_and_entries_that_slipped(
    unbroken: Path, tiny_checkpoint: Path
) -> None:
    gallery = dataclasses.replace(load_gallery(unbroken, load_checkpoint(tiny_checkpoint).manifest.id), projection=None)
    vectors = gallery.vectors(np.arange(RADIOGRAPHS))
    sound = {row: vectors[row] for row in sample_rows(gallery)}
    check_gallery(gallery, sound)
    with pytest.raises(ArtifactError, match="does not find itself first"):
        check_gallery(dataclasses.replace(gallery, index=Shifted(gallery.index, 0)), sound)
    with pytest.raises(ArtifactError, match="Search and NumPy differ"):
        check_gallery(dataclasses.replace(gallery, index=Shifted(gallery.index, 1)), sound)
    with pytest.raises(ArtifactError, match="has the embedding of another"):
        check_gallery(gallery, {row: vectors[row - 1] for row in sound})


def test_folder_that_is_no_gallery_is_never_replaced(options: BuildOptions) -> None:
    options.out.mkdir()
    (options.out / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="choose another folder"):
        build(options)
    assert (options.out / "thesis.txt").exists()


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    return ShardStore.open(tmp_path / "gallery", Plan("0123456789ab", "Drawn", "train", "all", "", SHARD_SIZE))


def test_shard_is_read_back_as_it_was_written(store: ShardStore) -> None:
    shard = Shard(
        [128, 130],
        np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32),
        [("Drawn/a.png", "torn")],
        ["ab", "cd", "ef"],
    )
    store.put(1, shard)
    again = store.get(1)
    assert (again.rows, again.unreadable, again.digests) == (shard.rows, shard.unreadable, shard.digests)
    assert (again.embeddings_nD == shard.embeddings_nD).all()


def test_damaged_shard_is_named(store: ShardStore, tmp_path: Path) -> None:
    (store.folder / "00000.safetensors").write_bytes(b"torn")
    with pytest.raises(ArtifactError, match=r"00000\.safetensors is damaged"):
        store.get(0)
