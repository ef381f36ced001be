"""A MURA folder is read as its authors published it, and contradictions are named."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dicom_files import dicom
from tests.phantoms import draw_phantom, write_dataset
from xray.artifact import sha256
from xray.errors import DatasetError
from xray.images.decoding.decode import read_radiograph
from xray.mura.files import HIDDEN
from xray.mura.studies import Study, compute_fingerprint, read_mura, read_split, records_of


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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_csv_is_read_in_any_encoding(root: Path, encoding: str) -> None:
    (root / "valid/XR_HAND/patient00006").rename(root / "valid/XR_HAND/patientÄ6")
    for file in root.glob("valid*.csv"):
        file.write_bytes(file.read_text().replace("patient00006", "patientÄ6").encode(encoding))
    assert "XR_HAND/patientÄ6/study1" in [study.key for study in read_mura(root, "valid")]


def as_v1_0(root: Path, row: str = "{path},{target}", first: str = "") -> None:
    """Replace the CSV files of `valid` by one with a row for each image."""
    records = records_of(read_mura(root, "valid"))
    for file in root.glob("valid*.csv"):
        file.unlink()
    rows = [row.format(path=record.path, target=record.target) for record in records]
    (root / "valid.csv").write_text("\n".join([first, *rows]))


@pytest.mark.parametrize(
    ("row", "first"),
    [
        ("{path};{target}", ""),
        ("{path};{target}", "sep=;\npath;label"),
        ("{path}\t{target}\tremark", ""),
        ("{path},{target}.0", "path,label"),
        ('"{path}", {target}', ""),
        ("./{path},{target}", ""),
        ("../data/{path},{target}", ""),
        ("/home/me/{path},{target}\r", ""),
    ],
)
def test_csv_of_any_program_is_read(root: Path, row: str, first: str) -> None:
    expected = described(read_mura(root, "valid"))
    as_v1_0(root, row, first)
    assert described(read_mura(root, "valid")) == expected


def test_paths_with_backslashes_are_read(root: Path) -> None:
    expected = described(read_mura(root, "valid"))
    for file in root.glob("valid*.csv"):
        file.write_text(file.read_text().replace("/", "\\"))
    assert described(read_mura(root, "valid")) == expected


def test_hidden_file_in_csv_is_passed_over_and_counted(root: Path) -> None:
    expected = described(read_mura(root, "valid"))
    rows = read_rows(root / "valid_image_paths.csv")
    write_rows(root / "valid_image_paths.csv", [*rows, [rows[0][0].replace("image1", "._image1")]])
    split = read_split(root, "valid")
    assert described(split.studies) == expected
    assert split.left_out == {HIDDEN: 1}


def test_listed_link_to_a_listed_folder_is_read_under_both_names(root: Path) -> None:
    folder = root / "valid/XR_HAND/patient00006"
    folder.with_name("patient99999").symlink_to(folder)
    for name in ("valid_image_paths.csv", "valid_labeled_studies.csv"):
        rows = read_rows(root / name)
        twins = [[row[0].replace("patient00006", "patient99999"), *row[1:]] for row in rows if "patient00006" in row[0]]
        write_rows(root / name, rows + twins)
    split = read_split(root, "valid")
    assert {"patient00006", "patient99999"} <= {study.patient for study in split.studies}
    assert "2 are one file with another image" in split.remark


def test_what_is_left_out_is_said_in_one_line(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in root.glob("valid*.csv"):
        file.unlink()
    images = sorted((root / "valid/XR_LEG").rglob("image1.png"))
    images[0].rename(images[0].with_suffix(".tif"))
    (root / "valid/.DS_Store").write_bytes(b"x")
    read_mura(root, "valid")
    (line,) = caplog.messages
    assert line == (
        "MURA-v1.1/valid: 7 images are read; left out: 1 .tif files, 1 hidden or system files and folders, "
        "1 study folders without an image"
    )
    caplog.clear()
    read_mura(root, "train")
    assert caplog.messages == []


def test_dicom_files_are_read_as_radiographs(root: Path) -> None:
    for file in root.glob("*.csv"):
        file.unlink()
    for number, image in enumerate(sorted((root / "valid/XR_HAND").rglob("*.png"))):
        pixels = draw_phantom(number)
        image.with_suffix(".dcm" if number else "").write_bytes(dicom(pixels))
        image.unlink()
    records = [record for record in records_of(read_mura(root, "valid")) if record.body_part == "XR_HAND"]
    assert [record.file.suffix for record in records] == ["", ".dcm", ".dcm", ".dcm", ".dcm"]
    assert all(read_radiograph(record.file).dicom is not None for record in records)


def test_fingerprint_changes_with_the_content_and_not_with_the_place(root: Path, tmp_path: Path) -> None:
    before = compute_fingerprint(records_of(read_mura(root, "valid")))
    copy = shutil.copytree(root, tmp_path / "elsewhere" / "MURA-v1.1")
    assert compute_fingerprint(records_of(read_mura(copy, "valid"))) == before
    file = records_of(read_mura(root, "valid"))[0].file
    status, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert compute_fingerprint(records_of(read_mura(root, "valid"))) != before


def test_fingerprint_uses_known_digests_and_reads_no_file(root: Path) -> None:
    records = records_of(read_mura(root, "valid"))
    digests = {record.path: sha256(record.file) for record in records}
    before = compute_fingerprint(records)
    for record in records:
        record.file.unlink()
    assert compute_fingerprint(records, digests) == before
    with pytest.raises(KeyError):
        compute_fingerprint(records, {})


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
    subpath = read_rows(root / "valid_image_paths.csv")[0][0].split("/", 1)[1]
    (root / subpath).unlink()
    return subpath


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
    return "Other/valid/XR_HAND/"


def forget_image_paths(root: Path) -> str:
    (root / "valid_image_paths.csv").unlink()
    return "valid_image_paths.csv"


def list_kind_that_is_not_read(root: Path) -> str:
    rows = read_rows(root / "valid_image_paths.csv")
    image = root.parent / rows[0][0]
    image.rename(image.with_suffix(".tif"))
    write_rows(root / "valid_image_paths.csv", [[rows[0][0].replace(".png", ".tif")], *rows[1:]])
    return "are .tif files: " + rows[0][0].replace(".png", ".tif")


def list_nothing(root: Path) -> str:
    as_v1_0(root)
    (root / "valid.csv").write_text("")
    return "valid.csv lists no path"


def list_names_alone(root: Path) -> str:
    as_v1_0(root)
    (root / "valid.csv").write_text("path,label\nimage1.png,1\n")
    return "valid.csv lists no path"


def interrupt_with_a_row_without_path(root: Path) -> str:
    as_v1_0(root)
    (root / "valid.csv").write_text((root / "valid.csv").read_text() + "\ntotal,8")
    return "total"


def label_one_image_twice(root: Path) -> str:
    as_v1_0(root)
    record = records_of(read_mura(root, "valid"))[0]
    (root / "valid.csv").write_text(f"{record.path},{1 - record.target}\n{(root / 'valid.csv').read_text()}")
    return f"lists {record.path} with both labels"


def write_bytes_that_are_no_text(root: Path) -> str:
    as_v1_0(root)
    (root / "valid.csv").write_bytes(b"\xff\xfe\x00\xd8\x01")
    return "valid.csv is not UTF-16 text"


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
        list_kind_that_is_not_read,
        list_nothing,
        list_names_alone,
        interrupt_with_a_row_without_path,
        label_one_image_twice,
        write_bytes_that_are_no_text,
        label_one_study_twice,
    ],
)
def test_contradictions_are_named(root: Path, spoil: Callable[[Path], str]) -> None:
    culprit = spoil(root)
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
