"""A folder on disk is complete or absent, and a damaged one is never used."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from shutil import copytree, rmtree

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.conftest import ROOT
from xray import artifact
from xray.artifact import (
    MANIFEST,
    allocate_file,
    atomic_file,
    atomic_folder,
    detect_full_disk,
    require_replaceable,
    staged_files,
)
from xray.engines.registry import load_engine
from xray.errors import ArtifactError, InputError, NoSpaceError
from xray.network.checkpoint import WEIGHTS, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.slow


def test_block_that_fails_leaves_the_former_folder_untouched(tmp_path: Path) -> None:
    def write(first: str, second: str | None) -> None:
        with atomic_folder(tmp_path / "artifact") as partial:
            (partial / MANIFEST).write_text("{}")
            (partial / "content").write_text(first)
            (partial / "more").write_text(second)  # type: ignore[arg-type]

    write("first", "whole")
    with pytest.raises(TypeError):
        write("second", None)
    assert (tmp_path / "artifact" / "content").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_leftover_of_a_killed_writer_does_not_reach_the_next_folder(tmp_path: Path) -> None:
    leftover = tmp_path / ".artifact.partial"
    leftover.mkdir()
    (leftover / "half").write_text("half")
    with atomic_folder(tmp_path / "artifact") as partial:
        (partial / "content").write_text("whole")
    assert [path.name for path in (tmp_path / "artifact").iterdir()] == ["content"]


def test_folder_that_is_no_artifact_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(InputError, match="thesis exists and holds no"), atomic_folder(tmp_path / "thesis") as partial:
        (partial / MANIFEST).write_text("{}")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


def test_folder_whose_name_is_no_utf8_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not UTF-8; choose another folder"):
        require_replaceable(tmp_path / os.fsdecode(b"gal\xe9rie"))


def test_artifact_of_a_writer_killed_between_its_renames_comes_back(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "artifact") as partial:
        (partial / MANIFEST).write_text("{}")
    (tmp_path / "artifact").rename(tmp_path / ".artifact.previous")
    require_replaceable(tmp_path / "artifact")
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def write_too_much(file: Path) -> None:
    """Write more than the disk can hold."""
    with file.open("wb") as stream:
        for _ in range(40):
            stream.write(bytes(100_000))


def replace_report(folder: Path) -> None:
    with staged_files(folder) as partial:
        (partial / "table").write_text("new")
        write_too_much(partial / "page")


def test_folder_that_does_not_fit_on_the_disk_is_named_and_the_former_one_kept(small_disk: Path) -> None:
    target = small_disk / "artifact"
    with atomic_folder(target) as partial:
        (partial / MANIFEST).write_text("{}")
    with (
        pytest.raises(NoSpaceError, match=r"^No space left on device: .*artifact cannot be written\. Free space"),
        atomic_folder(target) as partial,
    ):
        write_too_much(partial / "content")
    assert [path.name for path in small_disk.iterdir()] == ["artifact"]
    assert [path.name for path in target.iterdir()] == [MANIFEST]


def test_file_that_does_not_fit_on_the_disk_is_named_and_the_former_one_kept(small_disk: Path) -> None:
    file = small_disk / "state"
    file.write_text("former")
    with pytest.raises(NoSpaceError, match="state cannot be written"), atomic_file(file) as partial:
        save_file({"weights": np.zeros(4_000_000, np.uint8)}, partial)
    assert file.read_text() == "former"
    assert [path.name for path in small_disk.iterdir()] == ["state"]


def test_files_that_do_not_fit_together_leave_all_former_ones(small_disk: Path) -> None:
    folder = small_disk / "report"
    with staged_files(folder) as partial:
        (partial / "table").write_text("former")
        (partial / "page").write_text("former")
    with pytest.raises(NoSpaceError, match="report cannot be written"):
        replace_report(folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"table": "former", "page": "former"}
    assert [path.name for path in small_disk.iterdir()] == ["report"]


def test_files_replaced_together_leave_others_alone(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "notes").write_text("mine")
    with staged_files(folder) as partial:
        (partial / "table").write_text("new")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"notes": "mine", "table": "new"}


def test_room_is_set_aside_before_anything_is_written(small_disk: Path) -> None:
    allocate_file(small_disk / "pixels", 100_000)
    assert (small_disk / "pixels").stat().st_size == 100_000
    assert (small_disk / "pixels").stat().st_blocks * 512 >= 100_000
    with pytest.raises(NoSpaceError, match=r"needs 9\.5 MiB for more\. Free as much"):
        allocate_file(small_disk / "more", 10_000_000)


LIMITED = """
import resource, sys
from pathlib import Path
from xray.artifact import atomic_file, allocate_file
from xray.command_line import exit_with_message
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with exit_with_message():
    if sys.argv[1] == "allocate":
        allocate_file(Path(sys.argv[2]), 2000)
    with atomic_file(Path(sys.argv[2])) as partial:
        partial.write_bytes(bytes(2000))
"""


@pytest.mark.parametrize("written", [atomic_file, staged_files])
def test_replacement_is_flushed_to_its_folder_so_that_it_survives_a_power_cut(
    written: Callable[[Path], AbstractContextManager[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, flushed = tmp_path / "report", list[tuple[Path, bool]]()
    monkeypatch.setattr(artifact, "flush_to_disk", lambda path: flushed.append((path, target.exists())))
    with written(target) as partial:
        (partial / "table" if partial.is_dir() else partial).write_text("new")
    folder = target if target.is_dir() else tmp_path
    assert flushed[-1] == (folder, True)


def test_only_a_full_disk_is_called_one(tmp_path: Path) -> None:
    """The name of a file may contain the same text."""
    missing = tmp_path / os.strerror(errno.ENOSPC)
    with pytest.raises(FileNotFoundError), detect_full_disk(tmp_path):
        missing.read_text()
    with pytest.raises(NoSpaceError, match=r"^Disk quota exceeded: "), detect_full_disk(tmp_path):
        raise OSError(errno.EDQUOT, "over quota")
    with pytest.raises(NoSpaceError, match=r"^No space left on device: "), detect_full_disk(tmp_path):
        raise RuntimeError("write failed: No space left on device (os error 28)")


@pytest.mark.parametrize("way", ["allocate", "write"])
def test_limit_on_the_size_of_files_ends_a_command_in_one_line(way: str, tmp_path: Path) -> None:
    program = [sys.executable, "-c", LIMITED, way, str(tmp_path / "state")]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("NoSpaceError: File too large: ")
    assert done.stderr.count("\n") == 1


def test_checkpoint_answers_the_same_after_saving_and_loading(tiny_checkpoint: Path, tmp_path: Path) -> None:
    first = load_checkpoint(tiny_checkpoint)
    manifest = save_checkpoint(tmp_path / "again", first)
    second = load_checkpoint(tmp_path / "again")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64), np.uint8)
    assert manifest == second.manifest
    assert manifest.id == first.manifest.id
    answers = [load_engine(each, "cpu").forward(pixels).logits_B for each in (first, second)]
    assert torch.equal(*answers)


def test_sixteen_bit_storage_halves_the_file_and_keeps_the_logit(tiny_checkpoint: Path, tmp_path: Path) -> None:
    whole = load_checkpoint(tiny_checkpoint)
    save_checkpoint(tmp_path / "half", whole, "float16")
    half = load_checkpoint(tmp_path / "half")
    ratio = (tmp_path / "half" / WEIGHTS).stat().st_size / (tiny_checkpoint / WEIGHTS).stat().st_size
    assert ratio < 0.55
    assert half.manifest.id != whole.manifest.id
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64), np.uint8)
    exact, rounded = (load_engine(each, "cpu").forward(pixels).logits_B for each in (whole, half))
    assert rounded == pytest.approx(exact, abs=1e-2)


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def remove_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def remove_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def tear_manifest(folder: Path) -> None:
    content = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(content[: len(content) // 2])


def change_manifest(folder: Path, **changed: object) -> None:
    manifest = msgspec.json.decode((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest | changed))


def claim_another_architecture(folder: Path) -> None:
    change_manifest(folder, architecture="densenet169")


def claim_an_unknown_architecture(folder: Path) -> None:
    change_manifest(folder, architecture="vgg16")


def claim_another_id(folder: Path) -> None:
    change_manifest(folder, id="0" * 12)


def claim_another_schema(folder: Path) -> None:
    change_manifest(folder, schema_version=99)


def forget_thresholds(folder: Path) -> None:
    change_manifest(folder, thresholds={})


def shrink_input(folder: Path) -> None:
    change_manifest(folder, preprocess={"size": -5, "framing": "letterbox", "mean": 0.4, "std": 0.2})


def swap_labels(folder: Path) -> None:
    change_manifest(folder, labels=["abnormal", "normal"])


def drop_calibration(folder: Path) -> None:
    manifest = msgspec.json.decode((folder / MANIFEST).read_bytes())
    del manifest["calibration"]
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))


def put_a_file_in_its_place(folder: Path) -> None:
    rmtree(folder)
    folder.write_text("no folder")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (forget_thresholds, "thresholds"),
        (shrink_input, "size"),
        (swap_labels, "labels"),
        (drop_calibration, "lacks fields"),
        (put_a_file_in_its_place, "not a finished artifact"),
        (flip_a_bit, WEIGHTS),
        (remove_weights, WEIGHTS),
        (remove_manifest, MANIFEST),
        (tear_manifest, MANIFEST),
        (claim_another_architecture, "densenet169"),
        (claim_an_unknown_architecture, "'vgg16', which this version does not know; use a checkpoint of densenet121, "),
        (claim_another_id, "id"),
        (claim_another_schema, "schema 99"),
    ],
)
def test_damaged_checkpoint_is_refused_and_its_fault_named(
    tiny_checkpoint: Path, tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    folder = copytree(tiny_checkpoint, tmp_path / "damaged")
    damage(folder)
    with pytest.raises(ArtifactError) as caught:
        load_checkpoint(folder)
    assert named in str(caught.value)
