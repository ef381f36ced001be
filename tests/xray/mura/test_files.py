"""A search finds every image in a folder once, and counts the entries that it leaves out."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.dicom_files import dicom
from xray.errors import DatasetError
from xray.mura.files import HIDDEN, NO_SUFFIX, NOT_REGULAR, OTHER_NAME, find_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `a/image1.png` and `b/image1.png`, which are not decoded."""
    for name in "ab":
        write(tmp_path / "split" / name / "image1.png")
    return tmp_path / "split"


def write(file: Path, data: bytes = b"x") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def write_dicom(file: Path) -> Path:
    return write(file, dicom(np.zeros((8, 8), np.uint8)))


def names(folder: Path) -> list[str]:
    return list(find_images(folder).images)


def test_images_behind_links_to_files_and_folders_are_found(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "disk" / "image1.png")
    write(tmp_path / "image2.png")
    (folder / "c").symlink_to(tmp_path / "disk")
    (folder / "a" / "image2.png").symlink_to(tmp_path / "image2.png")
    found = find_images(folder)
    assert list(found.images) == ["a/image1.png", "a/image2.png", "b/image1.png", "c/image1.png"]
    assert all(file.read_bytes() == b"x" for file in found.images.values())
    assert not found.left_out


@pytest.mark.parametrize("target", [".", "..", "../..", "a", "self"])
def test_loop_of_links_ends_and_is_counted(folder: Path, target: str) -> None:
    (folder / "a" / "loop").symlink_to({"a": folder / "a", "self": folder}.get(target, target))
    found = find_images(folder)
    assert list(found.images) == ["a/image1.png", "b/image1.png"]
    assert found.left_out == {OTHER_NAME: 1}


def test_link_to_itself_is_named(folder: Path) -> None:
    (folder / "XR_HAND").symlink_to(folder / "XR_HAND")
    with pytest.raises(DatasetError, match="XR_HAND is a broken link"):
        find_images(folder)


def test_file_with_two_names_counts_once_under_the_one_that_is_no_link(folder: Path) -> None:
    (folder / "0").symlink_to(folder / "b")
    (folder / "a" / "image0.png").symlink_to(folder / "b" / "image1.png")
    found = find_images(folder)
    assert list(found.images) == ["a/image1.png", "b/image1.png"]
    assert found.left_out == {OTHER_NAME: 2}


def test_folder_outside_that_is_linked_twice_counts_once(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "disk" / "image1.png")
    for name in "cd":
        (folder / name).symlink_to(tmp_path / "disk")
    assert names(folder) == ["a/image1.png", "b/image1.png", "c/image1.png"]


def test_hard_links_are_images_of_their_own_and_counted(folder: Path) -> None:
    os.link(folder / "a" / "image1.png", folder / "a" / "image2.png")
    found = find_images(folder)
    assert len(found.images) == 3
    assert found.linked == 1


@pytest.mark.parametrize("name", ["image.PNG", "image.JPG", "image.Jpeg", "image.jfif", "image.DCM", "image.dicom"])
def test_suffixes_are_those_of_any_program_in_any_case(folder: Path, name: str) -> None:
    write(folder / "c" / name)
    assert f"c/{name}" in names(folder)


@pytest.mark.parametrize("name", ["IM000001", "1.2.826.0.1.3680043.10.1338.3"])
def test_dicom_file_without_suffix_is_an_image(folder: Path, name: str) -> None:
    write_dicom(folder / "c" / name)
    write(folder / "c" / "README")
    found = find_images(folder)
    assert f"c/{name}" in found.images
    assert found.left_out == {NO_SUFFIX: 1}


def test_directory_of_dicom_files_is_no_image(folder: Path) -> None:
    write_dicom(folder / "DICOMDIR")
    found = find_images(folder)
    assert list(found.images) == ["a/image1.png", "b/image1.png"]
    assert found.left_out == {HIDDEN: 1}


def test_what_is_left_out_is_counted_by_suffix(folder: Path) -> None:
    for name in ("c/image1.tif", "c/image2.TIF", "c/image1.png.bak", "notes.txt"):
        write(folder / name)
    assert find_images(folder).left_out == {".tif files": 2, ".bak files": 1, ".txt files": 1}


@pytest.mark.parametrize(
    "name",
    [
        "._image1.png",
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        ".hidden/image1.png",
        "@eaDir/image1.png/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/XR_HAND/image1.png",
        ".ipynb_checkpoints/image1-checkpoint.png",
        "#recycle/image1.png",
        "$RECYCLE.BIN/image1.png",
        "System Volume Information/image1.png",
        "lost+found/image1.png",
    ],
)
def test_what_systems_leave_behind_is_passed_over_and_counted(folder: Path, name: str) -> None:
    write(folder / "a" / name)
    found = find_images(folder)
    assert list(found.images) == ["a/image1.png", "b/image1.png"]
    assert found.left_out == {HIDDEN: 1}


def test_dataset_below_a_hidden_folder_is_read(tmp_path: Path) -> None:
    write(tmp_path / ".cache" / "@data" / "train" / "image1.png")
    assert names(tmp_path / ".cache" / "@data" / "train") == ["image1.png"]


def test_pipe_that_is_called_an_image_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "image.png")
    assert find_images(folder).left_out == {NOT_REGULAR: 1}


def test_body_part_whose_disk_is_not_mounted_is_named(folder: Path) -> None:
    (folder / "XR_HAND").symlink_to("/nowhere/XR_HAND")
    with pytest.raises(DatasetError, match="XR_HAND is a broken link"):
        find_images(folder)


def test_image_whose_link_leads_nowhere_stays_for_its_reader_to_name(folder: Path) -> None:
    (folder / "a" / "image2.png").symlink_to("/nowhere.png")
    assert "a/image2.png" in names(folder)


def test_name_that_is_no_utf8_is_read_as_latin_1(folder: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(folder) + b"/a/bild\xe9.png"))
    write(file)
    found = find_images(folder)
    assert found.images["a/bildé.png"].read_bytes() == b"x"
    write(folder / "a" / "bildé.png")
    with pytest.raises(DatasetError, match=r"a/bildé\.png is the name of two files"):
        find_images(folder)
