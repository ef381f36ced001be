"""A folder in MURA layout in, its studies out.

    ROOT/train/XR_HAND/patient00006/study1_positive/image1.png

Any `XR_*` body part, `.png`, `.jpg` and `.jpeg` are read. The labels come from MURA v1.1's
`train_labeled_studies.csv` and `train_image_paths.csv`, or v1.0's `train.csv`, or, without a CSV, from the
folder names.
"""

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from xray.errors import DatasetError
from xray.judgement import Label

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
LABELS: tuple[Label, Label] = ("normal", "abnormal")
"""Names of the targets 0 and 1."""
SHOWN = 5
"""How many offending paths an error message names."""

LAYOUT = re.compile(
    r"(?P<split>[^/]+)/(?P<body_part>XR_\w+)/(?P<patient>patient\w+)/(?P<study>study\w+?)_(?P<label>positive|negative)/"
    r"[^/]+$"
)


@dataclass(frozen=True)
class MuraRecord:
    """One image of a dataset.

    Attributes:
        path: as the dataset writes it, rooted at the dataset's name and free of server folders.
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


def read_mura(root: Path, split: str) -> list[Study]:
    """All studies of `root/split`, sorted by key, each with its images in the order of their numbers.

    Raises:
        DatasetError: no folder, no images, an image without a CSV row, a row without its image, or a label that
            contradicts the folder name. The message counts them and names the first few.
    """
    files = _images_on_disk(root, split)
    targets = _targets_from_csv(root, split)
    name = root.resolve().name
    if targets:
        name = next(iter(targets)).split("/", 1)[0]
        _require_same({f"{name}/{inner}" for inner in files}, targets.keys(), split)
    by_study: dict[str, list[MuraRecord]] = defaultdict(list)
    for inner, file in files.items():
        record = _record(f"{name}/{inner}", inner, file)
        if targets and targets[record.path] != record.target:
            raise DatasetError(
                f"{record.path}: the {split} CSV says {targets[record.path]}, the folder says {record.target}."
            )
        by_study[study_key(record.body_part, record.patient, record.study)].append(record)
    mixed = [key for key, records in by_study.items() if len({record.target for record in records}) > 1]
    if mixed:
        raise DatasetError(_listing(mixed, "studies have a folder of each label"))
    return [Study(tuple(by_study[key])) for key in sorted(by_study)]


def records_of(studies: Iterable[Study]) -> list[MuraRecord]:
    """Every image of the studies, study by study."""
    return [record for study in studies for record in study.records]


def fingerprint(records: Iterable[MuraRecord]) -> str:
    """SHA-256 over the sorted dataset paths and targets: equal for equal data, wherever it lies."""
    lines = sorted(f"{record.path},{record.target}\n" for record in records)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _images_on_disk(root: Path, split: str) -> dict[str, Path]:
    """Path below `root` to file, for every image of the split."""
    folder = root / split
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; give the folder that holds '{split}' in MURA layout.")
    found = sorted(
        (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."),
        key=_natural_order,
    )
    if not found:
        raise DatasetError(f"{folder} holds no .png, .jpg or .jpeg; expected {split}/XR_*/patient*/study*_*/image*.")
    return {path.relative_to(root).as_posix(): path for path in found}


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """image2 before image10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.as_posix())]


def _record(path: str, inner: str, file: Path) -> MuraRecord:
    parts = LAYOUT.fullmatch(inner)
    if parts is None:
        raise DatasetError(f"{path} is not in MURA layout: SPLIT/XR_PART/patientN/studyN_positive|negative/imageN.png.")
    return MuraRecord(
        path, file, parts["body_part"], parts["patient"], parts["study"], int(parts["label"] == "positive")
    )


def _targets_from_csv(root: Path, split: str) -> dict[str, int]:
    """Dataset path of each image to its target; empty when the dataset has no CSV for this split."""
    image_labels = root / f"{split}.csv"
    if image_labels.is_file():
        return {path: _target(value, image_labels) for path, value in _rows(image_labels, 2)}
    study_labels, image_paths = root / f"{split}_labeled_studies.csv", root / f"{split}_image_paths.csv"
    there = [file.is_file() for file in (study_labels, image_paths)]
    if not any(there):
        return {}
    if not all(there):
        raise DatasetError(f"{root} has one of {study_labels.name} and {image_paths.name} but not the other.")
    by_study = {path.rstrip("/"): _target(value, study_labels) for path, value in _rows(study_labels, 2)}
    images = [path for (path,) in _rows(image_paths, 1)]
    without_study = [path for path in images if PurePosixPath(path).parent.as_posix() not in by_study]
    if without_study:
        raise DatasetError(_listing(without_study, f"of {image_paths.name} have no row in {study_labels.name}"))
    return {path: by_study[PurePosixPath(path).parent.as_posix()] for path in images}


def _rows(file: Path, columns: int) -> list[list[str]]:
    """The rows of a CSV that begin with a path; a header line is recognised and left out."""
    with file.open(newline="", encoding="utf-8-sig") as lines:
        rows = [row for row in csv.reader(lines) if row and "/" in row[0]]
    short = [row[0] for row in rows if len(row) < columns]
    if short:
        raise DatasetError(_listing(short, f"of {file.name} have fewer than {columns} columns"))
    return [row[:columns] for row in rows]


def _target(value: str, file: Path) -> int:
    if value.strip() not in ("0", "1"):
        raise DatasetError(f"{file.name}: label {value!r} is neither 0 nor 1.")
    return int(value)


def _require_same(files: Set[str], listed: Set[str], split: str) -> None:
    without_row = sorted(files - listed)
    if without_row:
        raise DatasetError(_listing(without_row, f"have no row in the {split} CSV"))
    without_file = sorted(listed - files)
    if without_file:
        raise DatasetError(_listing(without_file, f"are listed in the {split} CSV but are not on disk"))


def _listing(paths: list[str], what: str) -> str:
    shown = ", ".join(paths[:SHOWN]) + (", …" if len(paths) > SHOWN else "")
    return f"{len(paths)} {what}: {shown}"
