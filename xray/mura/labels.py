"""Reads the labels of a split from its CSV files and holds them against the files on disk."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from xray.errors import DatasetError
from xray.mura.files import HIDDEN, is_image, kind_of, listing, natural_order, printable
from xray.mura.tables import is_hidden, read_paths, without_prefix

WITHOUT_IMAGE = "studies of the CSV without an image"
LISTED_TWICE = "repeated rows of the CSV"


@dataclass(frozen=True)
class Labels:
    """What the CSV files of a split say.

    Attributes:
        dataset: the dataset's name, as the rows write it.
        targets: 0 or 1 by path below the dataset's folder.
        files: where each of these lies on this machine.
        left_out: how many rows were left out, by reason.
    """

    dataset: str
    targets: Mapping[str, int]
    files: Mapping[str, Path]
    left_out: Counter[str]


@dataclass
class _Rows:
    """Rows by their path below the dataset's folder; all have one dataset's name."""

    root: Path
    split: str
    dataset: str | None = None
    written: dict[str, str] = field(default_factory=dict)

    def inner(self, path: str) -> str:
        """The path below the dataset's folder. Raises DatasetError if the path is not of this dataset and split."""
        prefix, inner = without_prefix(path, self.split)
        name = (inner and prefix.rpartition("/")[2]) or printable(self.root.resolve().name)
        if self.dataset is None and inner:
            self.dataset = name
        if not inner or name != self.dataset:
            wanted = f"{self.dataset or name}/{self.split}/XR_…"
            raise DatasetError(f"{path} is listed in the {self.split} CSV but does not lie in {wanted}.")
        return inner


def read_labels(root: Path, split: str, found: Mapping[str, Path]) -> Labels | None:
    """The labels of a split; None when the dataset has no CSV for it.

    Args:
        found: the images on disk by path below `root`. A listed path that is another name of one of them, by way of a
            link, is taken too.

    Raises:
        DatasetError: an image without a row, a row without its image, or rows that contradict each other.
    """
    rows, left_out = _Rows(root, split), Counter[str]()
    targets = _targets(rows, left_out)
    if targets is None:
        return None
    hidden = [inner for inner in targets if is_hidden(inner)]
    left_out[HIDDEN] += len(hidden)
    targets = {inner: target for inner, target in targets.items() if inner not in set(hidden)}
    name = rows.dataset or printable(root.resolve().name)
    if without_row := sorted(found.keys() - targets.keys()):
        raise DatasetError(listing([f"{name}/{inner}" for inner in without_row], f"have no row in the {split} CSV"))
    files = {inner: found[inner] for inner in found}
    for inner in sorted(targets.keys() - found.keys(), key=natural_order):
        if (root / inner).is_file() and is_image(root / inner):
            files[inner] = root / inner
    _require_all(root, name, split, targets.keys() - files.keys())
    return Labels(name, targets, files, +left_out)


def _require_all(root: Path, name: str, split: str, missing: Iterable[str]) -> None:
    """Raises: DatasetError: rows have no image, or one of a kind that is not read."""
    absent = sorted(inner for inner in missing if not (root / inner).is_file())
    if absent:
        raise DatasetError(
            listing([f"{name}/{inner}" for inner in absent], f"are listed in the {split} CSV but are not on disk")
        )
    if unread := sorted(missing):
        kinds = ", ".join(sorted({kind_of(root / inner) for inner in unread}))
        raise DatasetError(
            listing([f"{name}/{inner}" for inner in unread], f"are listed in the {split} CSV but are {kinds}")
            + "; only PNG, JPEG and DICOM are read."
        )


def _targets(rows: _Rows, left_out: Counter[str]) -> dict[str, int] | None:
    """Target of each listed image, by its path below the dataset's folder."""
    root, split = rows.root, rows.split
    image_labels = root / f"{split}.csv"
    if image_labels.is_file():
        return _labelled(image_labels, rows, left_out)
    study_labels, image_paths = root / f"{split}_labeled_studies.csv", root / f"{split}_image_paths.csv"
    there = [file.is_file() for file in (study_labels, image_paths)]
    if not any(there):
        return None
    if not all(there):
        raise DatasetError(f"{root} has one of {study_labels.name} and {image_paths.name} but not the other.")
    by_study = _labelled(study_labels, rows, left_out)
    images = [(path, rows.inner(path)) for (path,) in read_paths(image_paths, 1)]
    without_study = [path for path, inner in images if _folder(inner) not in by_study]
    if without_study:
        raise DatasetError(listing(without_study, f"of {image_paths.name} have no row in {study_labels.name}"))
    left_out[LISTED_TWICE] += len(images) - len({inner for _, inner in images})
    left_out[WITHOUT_IMAGE] += len(by_study.keys() - {_folder(inner) for _, inner in images})
    return {inner: by_study[_folder(inner)] for _, inner in images}


def _labelled(file: Path, rows: _Rows, left_out: Counter[str]) -> dict[str, int]:
    """Target of each row's path. Raises DatasetError if a path has two."""
    targets: dict[str, int] = {}
    for path, value in read_paths(file, 2):
        inner, target = rows.inner(path), _target(value, file)
        left_out[LISTED_TWICE] += inner in targets
        if targets.setdefault(inner, target) != target:
            raise DatasetError(f"{file.name} lists {path} with both labels.")
    return targets


def _folder(inner: str) -> str:
    return PurePosixPath(inner).parent.as_posix()


def _target(value: str, file: Path) -> int:
    try:
        target = float(value)
    except ValueError:
        target = -1
    if target not in (0, 1):
        raise DatasetError(f"{file.name}: label {value!r} is neither 0 nor 1.")
    return int(target)
