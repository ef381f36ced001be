"""A dataset is decoded once, and what is kept is what decoding would say again."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.phantoms import write_dataset
from training.canvases import PIXELS, Canvases, decode_once
from xray.errors import ArtifactError, DatasetError
from xray.mura import MuraRecord, read_mura, records_of
from xray.preprocess import PreprocessSpec, preprocess
from xray.reading import read_radiograph

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
