"""Patients that are in two splits are counted before any metric is computed on them."""

import shutil
from pathlib import Path

import pytest

from tests.phantoms import write_dataset
from xray.errors import DatasetError
from xray.mura.overlap import require_disjoint
from xray.mura.studies import read_mura


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset whose studies 0 and 1 are of hands, 2 and 3 of legs."""
    root = write_dataset(tmp_path / "MURA-v1.1", studies=4)
    for file in root.glob("*.csv"):
        file.unlink()
    return root


def check(root: Path, split: str = "valid", allow: bool = False) -> dict[str, int]:
    return require_disjoint(root, split, read_mura(root, split), allow)


def copy_patient(root: Path, source: str, target: str) -> None:
    shutil.copytree(root / source, root / target)


def test_splits_without_a_common_patient_pass_in_silence(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert check(root, "train") == check(root, "valid") == {}
    assert caplog.messages == []


def test_patients_in_both_splits_are_counted_in_an_error_that_says_how_to_go_on(root: Path) -> None:
    for number, part in enumerate(("XR_HAND", "XR_HAND", "XR_LEG")):
        copy_patient(root, f"train/{part}/patient0000{number}", f"valid/{part}/patient0000{number}")
    for split in ("train", "valid"):
        with pytest.raises(DatasetError, match=r"^3 patients are in both .* patient00000, .*--allow-overlap"):
            check(root, split)


def test_patient_whose_other_body_part_is_in_the_other_split_is_in_both(root: Path) -> None:
    copy_patient(root, "train/XR_HAND/patient00000", "valid/XR_ELBOW/patient00000")
    with pytest.raises(DatasetError, match=r"1 patients are in both valid and train of MURA-v1\.1: patient00000"):
        check(root)


def test_overlap_that_is_allowed_is_logged_and_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    copy_patient(root, "train/XR_HAND/patient00000", "valid/XR_HAND/patient00000")
    assert check(root, allow=True) == {"train": 1}
    assert any("1 patients are in both valid and train" in line for line in caplog.messages)


def test_any_further_split_counts(root: Path) -> None:
    copy_patient(root, "train/XR_HAND/patient00000", "test/XR_HAND/patient00000")
    assert check(root, "valid") == {}
    with pytest.raises(DatasetError, match="in both train and test"):
        check(root, "train")


def test_split_that_is_a_link_to_the_other_is_found(root: Path) -> None:
    shutil.rmtree(root / "valid")
    (root / "valid").symlink_to("train")
    with pytest.raises(DatasetError, match="4 patients are in both"):
        check(root)


def test_equal_files_of_other_patients_are_logged(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = root / "train/XR_HAND/patient00001/study1_positive/image1.png"
    shutil.copy(image, root / "valid/XR_HAND/patient00005/study1_positive/image2.png")
    assert check(root) == {}
    (line,) = caplog.messages
    assert line.startswith("1 images of valid are byte for byte in train of MURA-v1.1 too")
    assert "MURA-v1.1/valid/XR_HAND/patient00005/study1_positive/image2.png" in line
