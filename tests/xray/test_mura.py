"""A MURA folder is read as its authors wrote it, and whatever contradicts itself is named."""

import csv
import shutil
from pathlib import Path

import pytest

from tests.phantoms import write_dataset
from xray.errors import DatasetError
from xray.mura import Study, read_mura, records_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "MURA-v1.1", studies=6)


def read_rows(file: Path) -> list[list[str]]:
    with file.open(newline="") as stream:
        return list(csv.reader(stream))


def write_rows(file: Path, rows: list[list[str]]) -> None:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def described(studies: list[Study]) -> list[tuple[str, int, list[str]]]:
    return [(study.key, study.target, [record.path for record in study.records]) for study in studies]


def test_v1_1_v1_0_and_bare_folders_give_the_same_studies(root: Path) -> None:
    expected = described(read_mura(root, "valid"))
    labels = dict(read_rows(root / "valid_labeled_studies.csv"))
    images = [path for (path,) in read_rows(root / "valid_image_paths.csv")]
    for file in root.glob("*.csv"):
        file.unlink()
    assert described(read_mura(root, "valid")) == expected
    write_rows(root / "valid.csv", [[path, labels[path.rsplit("/", 1)[0] + "/"]] for path in images])
    assert described(read_mura(root, "valid")) == expected


def test_paths_are_the_datasets_own_even_where_its_folder_was_renamed(root: Path) -> None:
    moved = root.rename(root.with_name("copy-2"))
    records = records_of(read_mura(moved, "train"))
    assert {record.path.split("/")[0] for record in records} == {"MURA-v1.1"}
    assert all(record.file.is_file() for record in records)


def test_studies_hold_their_views_in_order_and_their_label(root: Path) -> None:
    folder = root / "train/XR_HAND/patient00000/study1_negative"
    shutil.copy(folder / "image1.png", folder / "image10.jpeg")
    shutil.copy(folder / "image1.png", folder / "image9.jpg")
    for file in root.glob("train*.csv"):
        file.unlink()
    study = read_mura(root, "train")[0]
    assert (study.key, study.target) == ("XR_HAND/patient00000/study1", 0)
    names = [record.file.name for record in study.records]
    assert names == ["image1.png", "image2.png", "image9.jpg", "image10.jpeg"]


def test_csv_with_a_byte_order_mark_is_read_as_one_without(root: Path) -> None:
    expected = described(read_mura(root, "valid"))
    for file in root.glob("valid*.csv"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert described(read_mura(root, "valid")) == expected


def test_any_body_part_is_read(root: Path) -> None:
    (root / "train/XR_HAND").rename(root / "train/XR_SPINE_C")
    for file in root.glob("train*.csv"):
        file.unlink()
    assert {study.body_part for study in read_mura(root, "train")} == {"XR_SPINE_C", "XR_LEG"}


def drop_study_row(root: Path) -> str:
    rows = read_rows(root / "valid_labeled_studies.csv")
    write_rows(root / "valid_labeled_studies.csv", rows[1:])
    return rows[0][0]


def drop_image_row(root: Path) -> str:
    rows = read_rows(root / "valid_image_paths.csv")
    write_rows(root / "valid_image_paths.csv", rows[1:])
    return rows[0][0].split("/", 1)[1]


def drop_image(root: Path) -> str:
    inner = read_rows(root / "valid_image_paths.csv")[0][0].split("/", 1)[1]
    (root / inner).unlink()
    return inner


def contradict_label(root: Path) -> str:
    rows = read_rows(root / "valid_labeled_studies.csv")
    write_rows(root / "valid_labeled_studies.csv", [[rows[0][0], "1"], *rows[1:]])
    return rows[0][0]


def misspell_label(root: Path) -> str:
    rows = read_rows(root / "valid_labeled_studies.csv")
    write_rows(root / "valid_labeled_studies.csv", [[rows[0][0], "yes"], *rows[1:]])
    return "'yes'"


def misplace_image(root: Path) -> str:
    for file in root.glob("valid*.csv"):
        file.unlink()
    folder = root / "valid/XR_HAND"
    shutil.copy(next(folder.rglob("*.png")), folder / "stray.png")
    return "valid/XR_HAND/stray.png"


def rename_dataset_in_one_row(root: Path) -> str:
    rows = read_rows(root / "valid_image_paths.csv")
    labels = read_rows(root / "valid_labeled_studies.csv")
    write_rows(
        root / "valid_labeled_studies.csv", [*labels, [labels[-1][0].replace("MURA-v1.1", "Other"), labels[-1][1]]]
    )
    write_rows(root / "valid_image_paths.csv", [*rows[:-1], [rows[-1][0].replace("MURA-v1.1", "Other")]])
    return rows[-1][0]


def forget_image_paths(root: Path) -> str:
    (root / "valid_image_paths.csv").unlink()
    return "valid_image_paths.csv"


def label_one_study_twice(root: Path) -> str:
    for file in root.glob("valid*.csv"):
        file.unlink()
    folder = next((root / "valid/XR_HAND").rglob("study1_negative"))
    shutil.copytree(folder, folder.with_name("study1_positive"))
    return f"XR_HAND/{folder.parent.name}/study1"


@pytest.mark.parametrize(
    "spoil",
    [
        drop_study_row,
        drop_image_row,
        drop_image,
        contradict_label,
        misspell_label,
        misplace_image,
        rename_dataset_in_one_row,
        forget_image_paths,
        label_one_study_twice,
    ],
)
def test_contradictions_are_named(root: Path, spoil: object) -> None:
    culprit = spoil(root)  # type: ignore[operator]
    with pytest.raises(DatasetError) as caught:
        read_mura(root, "valid")
    assert culprit in str(caught.value)


def test_empty_and_missing_splits_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="give the folder that holds 'train'"):
        read_mura(tmp_path, "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(DatasetError, match="expected train/XR_"):
        read_mura(tmp_path, "train")


def test_fracatlas_is_read_whole(fracatlas: Path) -> None:
    listed = {path for (path,) in read_rows(fracatlas / "valid_image_paths.csv")}
    assert {record.path for record in records_of(read_mura(fracatlas, "valid"))} == listed
