"""Reads the studies of a folder in MURA layout.

    ROOT/train/XR_HAND/patient00006/study1_positive/image1.png

Any `XR_*` body part is read, and in it PNG, JPEG and DICOM files. The labels come from MURA v1.1's
`train_labeled_studies.csv` and `train_image_paths.csv`, or v1.0's `train.csv`, or, without a CSV, from the folder
names.
"""

import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xray.errors import DatasetError
from xray.mura.files import FoundImages, find_images, listing, printable
from xray.mura.fingerprint import digests
from xray.mura.labels import Labels, read_labels
from xray.types import LABELS

EMPTY_STUDIES = "study folders without an image"

STUDY_LAYOUT = r"[^/]+/(?P<body_part>XR_\w+)/(?P<patient>patient\w+)/(?P<study>study\w+?)_(?P<label>positive|negative)"
STUDY_FOLDER = re.compile(STUDY_LAYOUT)
IMAGE_PATH = re.compile(rf"{STUDY_LAYOUT}/[^/]+")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MuraRecord:
    """One image of a dataset.

    Attributes:
        path: as the dataset writes it, rooted at the dataset's name and free of server folders; always printable.
        file: where it lies on this machine.
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
        return LABELS[self.target]


@dataclass(frozen=True)
class Study:
    """The radiographs of one body part of one patient at one visit; they share one target."""

    records: tuple[MuraRecord, ...]

    @property
    def target(self) -> int:
        return self.records[0].target

    @property
    def body_part(self) -> str:
        return self.records[0].body_part

    @property
    def patient(self) -> str:
        return self.records[0].patient

    @property
    def key(self) -> str:
        """`XR_HAND/patient00006/study1`: unique within a dataset."""
        return study_key(self.records[0].body_part, self.records[0].patient, self.records[0].study)


def study_key(body_part: str, patient: str, study: str) -> str:
    """The name of a study within a dataset."""
    return f"{body_part}/{patient}/{study}"


@dataclass(frozen=True)
class Split:
    """What `read_split` found.

    Attributes:
        name: of the dataset and of the split, such as `MURA-v1.1/train`.
        studies: sorted by key, each with its images in the order of their numbers.
        left_out: how many files, folders and rows were left out, by suffix or reason.
        linked: how many images are one file with another one, by a hard link or as the CSV lists them.
    """

    name: str
    studies: list[Study]
    left_out: Mapping[str, int]
    linked: int

    @property
    def remark(self) -> str:
        """One line that says what was left out or counts twice; empty where nothing does."""
        linked = f"; {self.linked} are one file with another image" if self.linked else ""
        left_out = f"; left out: {counted(self.left_out)}" if self.left_out else ""
        if not linked + left_out:
            return ""
        return f"{self.name}: {len(records_of(self.studies))} images are read{linked}{left_out}"


def read_mura(root: Path, split: str) -> list[Study]:
    """The studies of `read_split`; what is left out is logged."""
    found = read_split(root, split)
    if found.remark:
        log.warning(found.remark)
    return found.studies


def read_split(root: Path, split: str) -> Split:
    """All studies of `root/split`. Links are followed, and a file that is reached twice counts once.

    Raises:
        DatasetError: no folder, no images, an image without a CSV row, a row without its image, or a label that
            contradicts the folder name. The message counts them and names the first few.
    """
    found = find_images(folder_of(root, split))
    files: Mapping[str, Path] = {f"{split}/{inner}": file for inner, file in found.images.items()}
    labels = read_labels(root, split, files)
    if not (files := files if labels is None else labels.files):
        raise DatasetError(_nothing_in(root, split, found.left_out))
    name = dataset_name(root) if labels is None else labels.dataset
    by_study: dict[str, list[MuraRecord]] = defaultdict(list)
    for inner, file in files.items():
        record = _record(f"{name}/{inner}", inner, file)
        _require_same_label(record, inner, split, labels)
        by_study[study_key(record.body_part, record.patient, record.study)].append(record)
    mixed = [key for key, records in by_study.items() if len({record.target for record in records}) > 1]
    if mixed:
        raise DatasetError(listing(mixed, "studies have a folder of each label"))
    left_out = found.left_out + (Counter() if labels is None else labels.left_out) + _empty_studies(found, split, files)
    linked = found.linked + len(files) - len(found.images)
    return Split(f"{name}/{split}", [Study(tuple(by_study[key])) for key in sorted(by_study)], left_out, linked)


def counted(left_out: Mapping[str, int]) -> str:
    """`2 .tif files, 1 files without suffix`."""
    return ", ".join(f"{count} {what}" for what, count in sorted(left_out.items()))


def folder_of(root: Path, split: str) -> Path:
    """Raises: DatasetError: the split has no folder."""
    folder = root / split
    if not folder.is_dir():
        raise DatasetError(
            f"{printable(str(folder))} is not a folder; give the folder that holds '{split}' in MURA layout."
        )
    return folder


def dataset_name(root: Path) -> str:
    """The name of a dataset's folder as text."""
    return printable(root.resolve().name)


def records_of(studies: Iterable[Study]) -> list[MuraRecord]:
    """Every image of the studies, study by study."""
    return [record for study in studies for record in study.records]


def fingerprint(records: Sequence[MuraRecord], known: Mapping[str, str] | None = None) -> str:
    """SHA-256 over the sorted dataset paths, targets and contents: equal for equal data, wherever it lies.

    Args:
        known: SHA-256 of each file by the record's path, where they were read already.
    """
    contents = [known[record.path] for record in records] if known else digests(record.file for record in records)
    return _digest_of(
        f"{record.path}\0{record.target}\0{digest}" for record, digest in zip(records, contents, strict=True)
    )


def names_fingerprint(records: Iterable[MuraRecord]) -> str:
    """SHA-256 over the sorted dataset paths and targets, whatever the files hold."""
    return _digest_of(f"{record.path}\0{record.target}" for record in records)


def _digest_of(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _record(path: str, inner: str, file: Path) -> MuraRecord:
    parts = IMAGE_PATH.fullmatch(inner)
    if parts is None:
        raise DatasetError(f"{path} is not in MURA layout: SPLIT/XR_PART/patientN/studyN_positive|negative/imageN.png.")
    return MuraRecord(
        path, file, parts["body_part"], parts["patient"], parts["study"], int(parts["label"] == "positive")
    )


def _require_same_label(record: MuraRecord, inner: str, split: str, labels: Labels | None) -> None:
    if labels is not None and labels.targets[inner] != record.target:
        raise DatasetError(
            f"{record.path}: the {split} CSV says {labels.targets[inner]}, the folder says {record.target}."
        )


def _empty_studies(found: FoundImages, split: str, files: Iterable[str]) -> Counter[str]:
    """How many study folders hold no image that is read."""
    with_image = {inner.rpartition("/")[0] for inner in files}
    folders = (f"{split}/{inner}" for inner in found.folders)
    count = sum(STUDY_FOLDER.fullmatch(folder) is not None and folder not in with_image for folder in folders)
    return Counter({EMPTY_STUDIES: count} if count else {})


def _nothing_in(root: Path, split: str, left_out: Mapping[str, int]) -> str:
    instead = f", but {counted(left_out)}" if left_out else ""
    return (
        f"{printable(str(root / split))} holds no PNG, JPEG or DICOM file{instead}; "
        f"expected {split}/XR_*/patient*/study*_*/image*."
    )
