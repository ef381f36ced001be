"""Reads the studies of a dataset in MURA layout.

    ROOT/train/XR_HAND/patient00006/study1_positive/image1.png

Any body part `XR_*` is read, with PNG, JPEG and DICOM files. The labels come from `train_labeled_studies.csv` and
`train_image_paths.csv` (MURA v1.1), from `train.csv` (v1.0), or, without a CSV, from the names of the folders.
"""

import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xray.errors import DatasetError
from xray.mura.files import FoundImages, find_images, listing, to_printable
from xray.mura.fingerprint import compute_digests
from xray.mura.labels import Labels, read_labels
from xray.types import LABELS

EMPTY_STUDIES = "study folders without an image"

STUDY_LAYOUT = r"[^/]+/(?P<body_part>XR_\w+)/(?P<patient>patient\w+)/(?P<study>study\w+?)_(?P<label>positive|negative)"
STUDY_FOLDER = re.compile(STUDY_LAYOUT)
IMAGE_PATH = re.compile(rf"{STUDY_LAYOUT}/[^/]+")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MuraRecord:
    """One image of a study in a dataset in MURA layout.

    Attributes:
        path: the path in the dataset, which starts with the dataset's name; always printable.
        file: the file on this machine.
        body_part, patient, study: read from the path, e.g. `XR_HAND`, `patient00006`, `study1`.
        target: 0 normal, 1 abnormal.
    """

    path: str
    file: Path
    body_part: str
    patient: str
    study: str
    target: int

    @property
    def label(self) -> str:
        """The label of the image's study: `normal` or `abnormal`."""
        return LABELS[self.target]

    @property
    def study_key(self) -> str:
        """The key of the image's study, such as `XR_HAND/patient00006/study1`; unique within a dataset."""
        return study_key(self.body_part, self.patient, self.study)


@dataclass(frozen=True)
class Study:
    """A MURA study: the radiographs of one body part of one patient from one visit, which have the same target."""

    records: tuple[MuraRecord, ...]

    @property
    def target(self) -> int:
        """The target of the MURA study: 0 normal, 1 abnormal."""
        return self.records[0].target

    @property
    def body_part(self) -> str:
        """The body part of the MURA study, such as `XR_HAND`."""
        return self.records[0].body_part

    @property
    def patient(self) -> str:
        """The patient of the MURA study, such as `patient00006`."""
        return self.records[0].patient

    @property
    def key(self) -> str:
        """The key of the MURA study, such as `XR_HAND/patient00006/study1`; unique within a dataset."""
        return self.records[0].study_key


def study_key(body_part: str, patient: str, study: str) -> str:
    """Return the key that tells a dataset's studies apart: `XR_HAND/patient00006/study1`."""
    return f"{body_part}/{patient}/{study}"


@dataclass(frozen=True)
class Split:
    """The studies of one split of a dataset in MURA layout.

    Attributes:
        name: names of the dataset and the split, such as `MURA-v1.1/train`.
        studies: sorted by key, each with its images in the order of their numbers.
        left_out: number of files, folders and rows that were left out, by suffix or reason.
        linked: number of images that are the same file as another image, by a hard link or by two rows of the CSV.
    """

    name: str
    studies: list[Study]
    left_out: Mapping[str, int]
    linked: int

    @property
    def remark(self) -> str:
        """A line about a split's entries that were left out or count twice; empty if there are none."""
        linked = f"; {self.linked} are one file with another image" if self.linked else ""
        left_out = f"; left out: {describe_counts(self.left_out)}" if self.left_out else ""
        if not linked + left_out:
            return ""
        return f"{self.name}: {len(records_of(self.studies))} images are read{linked}{left_out}"


def read_mura(root: Path, split: str) -> list[Study]:
    """Read the studies of a split in MURA layout, as `read_split` does, and log the entries that are left out."""
    found = read_split(root, split)
    if found.remark:
        log.warning(found.remark)
    return found.studies


def read_split(root: Path, split: str) -> Split:
    """Read all MURA studies in `root/split`. Links are followed, and a file that is reached twice counts once.

    Raises:
        DatasetError: there is no folder or no image, an image has no row in the CSV, a row has no image, or a label
            contradicts the name of a folder. The message counts such paths and names the first few.
    """
    found = find_images(split_folder(root, split))
    files: Mapping[str, Path] = {f"{split}/{subpath}": file for subpath, file in found.images.items()}
    labels = read_labels(root, split, files)
    if not (files := files if labels is None else labels.files):
        raise DatasetError(_no_images_message(root, split, found.left_out))
    name = dataset_name(root) if labels is None else labels.dataset
    by_study: dict[str, list[MuraRecord]] = defaultdict(list)
    for subpath, file in files.items():
        record = _parse_record(f"{name}/{subpath}", subpath, file)
        _require_same_label(record, subpath, split, labels)
        by_study[record.study_key].append(record)
    mixed = [key for key, records in by_study.items() if len({record.target for record in records}) > 1]
    if mixed:
        raise DatasetError(listing(mixed, "studies have a folder of each label"))
    left_out = found.left_out + (Counter() if labels is None else labels.left_out) + _empty_studies(found, split, files)
    linked = found.linked + len(files) - len(found.images)
    return Split(f"{name}/{split}", [Study(tuple(by_study[key])) for key in sorted(by_study)], left_out, linked)


def describe_counts(left_out: Mapping[str, int]) -> str:
    """Describe counts of entries left out of the studies: `2 .tif files, 1 files without suffix`."""
    return ", ".join(f"{count} {what}" for what, count in sorted(left_out.items()))


def split_folder(root: Path, split: str) -> Path:
    """Return the folder from which the studies of a split are read.

    Raises:
        DatasetError: the folder does not exist.
    """
    folder = root / split
    if not folder.is_dir():
        raise DatasetError(
            f"{to_printable(str(folder))} is not a folder; give the folder that holds '{split}' in MURA layout."
        )
    return folder


def dataset_name(root: Path) -> str:
    """Return the printable name of the dataset whose studies are in a folder."""
    return to_printable(root.resolve().name)


def records_of(studies: Iterable[Study]) -> list[MuraRecord]:
    """Return all images of the MURA studies, in the order of the studies."""
    return [record for study in studies for record in study.records]


def compute_fingerprint(records: Sequence[MuraRecord], known: Mapping[str, str] | None = None) -> str:
    """Return a SHA-256 that tells one set of studies from another by their paths, targets and contents.

    It is computed over the sorted paths, targets and contents, and does not depend on the dataset's location.

    Args:
        known: the SHA-256 of each file, by the path of its record, if the files have been read already.
    """
    if known is None:
        digests = compute_digests(record.file for record in records)
    else:
        digests = [known[record.path] for record in records]
    return _hash_lines(
        f"{record.path}\0{record.target}\0{digest}" for record, digest in zip(records, digests, strict=True)
    )


def compute_names_fingerprint(records: Iterable[MuraRecord]) -> str:
    """Return a SHA-256 that tells one set of studies from another by their paths and targets, not by their contents.

    It is computed over the sorted paths and targets.
    """
    return _hash_lines(f"{record.path}\0{record.target}" for record in records)


def _hash_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _parse_record(path: str, subpath: str, file: Path) -> MuraRecord:
    parts = IMAGE_PATH.fullmatch(subpath)
    if parts is None:
        raise DatasetError(
            f"{path} is not in MURA layout, which is SPLIT/XR_PART/patientN/studyN_positive|negative/imageN.png."
        )
    return MuraRecord(
        path, file, parts["body_part"], parts["patient"], parts["study"], int(parts["label"] == "positive")
    )


def _require_same_label(record: MuraRecord, subpath: str, split: str, labels: Labels | None) -> None:
    if labels is not None and labels.targets[subpath] != record.target:
        raise DatasetError(
            f"{record.path}: the {split} CSV says {labels.targets[subpath]}, the folder says {record.target}."
        )


def _empty_studies(found: FoundImages, split: str, files: Iterable[str]) -> Counter[str]:
    """Count the study folders without a readable image."""
    with_image = {subpath.rpartition("/")[0] for subpath in files}
    folders = (f"{split}/{subpath}" for subpath in found.folders)
    count = sum(STUDY_FOLDER.fullmatch(folder) is not None and folder not in with_image for folder in folders)
    return Counter({EMPTY_STUDIES: count} if count else {})


def _no_images_message(root: Path, split: str, left_out: Mapping[str, int]) -> str:
    instead = f", but {describe_counts(left_out)}" if left_out else ""
    return (
        f"{to_printable(str(root / split))} holds no PNG, JPEG or DICOM file{instead}; "
        f"expected {split}/XR_*/patient*/study*_*/image*."
    )
