"""A dataset is decoded once, and what is kept is what decoding would say again."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.phantoms import write_dataset
from training.dataset.image_cache import PIXELS, Canvases, decode_once
from xray.artifact import sha256
from xray.errors import ArtifactError, DatasetError, NoSpaceError
from xray.images.decoding.decode import read_radiograph
from xray.images.preprocess import PREPROCESS_VERSION, PreprocessSpec, preprocess
from xray.mura.studies import MuraRecord, read_mura, records_of

SPEC = PreprocessSpec(size=64)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("canvases") / "Phantoms", studies=4)


@pytest.fixture(scope="module")
def records(dataset: Path) -> list[MuraRecord]:
    return records_of(read_mura(dataset, "train"))


def test_kept_canvas_and_placement_are_those_of_the_file(records: list[MuraRecord], tmp_path: Path) -> None:
    canvases = decode_once(records, SPEC, tmp_path / "canvases")
    for record in records:
        pixels, placement = preprocess(read_radiograph(record.file), SPEC)
        kept, kept_placement = canvases[record.path]
        np.testing.assert_array_equal(kept, pixels)
        assert kept_placement == placement


def test_second_run_decodes_nothing_and_another_input_decodes_anew(records: list[MuraRecord], tmp_path: Path) -> None:
    folder = tmp_path / "canvases"
    decode_once(records, SPEC, folder)
    written = (folder / PIXELS).stat().st_mtime_ns
    decode_once(records, SPEC, folder)
    assert (folder / PIXELS).stat().st_mtime_ns == written
    decode_once(records, PreprocessSpec(size=32), folder)
    assert (folder / PIXELS).stat().st_size == len(records) * 32**2
    decode_once(records[1:], SPEC, folder)
    assert (folder / PIXELS).stat().st_size == (len(records) - 1) * 64**2


@pytest.mark.parametrize("restored", [False, True])
def test_radiograph_replaced_under_its_name_is_decoded_again(dataset: Path, tmp_path: Path, restored: bool) -> None:
    records = records_of(read_mura(shutil.copytree(dataset, tmp_path / "Phantoms"), "train"))
    file, status = records[0].file, records[0].file.stat()
    before = decode_once(records, SPEC, tmp_path / "canvases")[records[0].path][0].copy()
    pixels = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    cv2.imwrite(str(file), cv2.rotate(pixels, cv2.ROTATE_180))
    if restored:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    canvases = decode_once(records, SPEC, tmp_path / "canvases")
    after = canvases[records[0].path][0]
    np.testing.assert_array_equal(after, preprocess(read_radiograph(file), SPEC)[0])
    assert (before != after).any()
    assert canvases.digests[records[0].path] == sha256(file)


def test_canvases_of_another_preprocessing_are_decoded_again(
    records: list[MuraRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode_once(records, SPEC, tmp_path / "canvases")
    before = (tmp_path / "canvases" / PIXELS).stat().st_ino
    monkeypatch.setattr("training.dataset.image_cache.PREPROCESS_VERSION", PREPROCESS_VERSION + 1)
    decode_once(records, SPEC, tmp_path / "canvases")
    assert (tmp_path / "canvases" / PIXELS).stat().st_ino != before


def test_copy_of_the_dataset_elsewhere_is_not_decoded_again(
    records: list[MuraRecord], dataset: Path, tmp_path: Path
) -> None:
    decode_once(records, SPEC, tmp_path / "canvases")
    written = (tmp_path / "canvases" / PIXELS).stat().st_mtime_ns
    copy = records_of(read_mura(shutil.copytree(dataset, tmp_path / "Phantoms"), "train"))
    decode_once(copy, SPEC, tmp_path / "canvases")
    assert (tmp_path / "canvases" / PIXELS).stat().st_mtime_ns == written


def test_canvases_that_do_not_fit_on_the_disk_are_an_error_and_the_former_ones_are_kept(
    records: list[MuraRecord], small_disk: Path
) -> None:
    decode_once(records, SPEC, small_disk / "canvases")
    with pytest.raises(NoSpaceError, match=r"^No space left on device: .* needs \d+\.\d MiB for pixels\.u8"):
        decode_once(records, PreprocessSpec(size=1024), small_disk / "canvases")
    assert Canvases(small_disk / "canvases").manifest.preprocess == SPEC
    assert [path.name for path in small_disk.iterdir()] == ["canvases"]


def test_file_cut_short_is_decoded_again(records: list[MuraRecord], tmp_path: Path) -> None:
    folder = tmp_path / "canvases"
    decode_once(records, SPEC, folder)
    with (folder / PIXELS).open("r+b") as stream:
        stream.truncate(100)
    assert decode_once(records, SPEC, folder)[records[-1].path][0].any()


def test_unreadable_images_are_named_and_nothing_is_kept(dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "Phantoms"
    shutil.copytree(dataset, copy)
    records = records_of(read_mura(copy, "train"))
    records[1].file.write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=rf"1 of {len(records)} images cannot be read:\n  {records[1].path}"):
        decode_once(records, SPEC, tmp_path / "canvases")
    with pytest.raises(ArtifactError, match="is not a finished artifact"):
        Canvases(tmp_path / "canvases")
