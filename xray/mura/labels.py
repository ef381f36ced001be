"""Reads the labels of a split from its CSV files, and checks them against the images on disk."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from xray.errors import DatasetError
from xray.mura.files import HIDDEN, file_kind, is_image, listing, natural_sort_key, to_printable
from xray.mura.tables import has_system_name, read_paths, split_prefix

WITHOUT_IMAGE = "studies of the CSV without an image"
LISTED_TWICE = "repeated rows of the CSV"
"""Reasons why rows are left out."""


@dataclass(frozen=True)
class Labels:
    """The labels in the CSV files of a dataset's split.

    Attributes:
        dataset: the dataset's name in the rows.
        targets: 0 or 1 for each path below the dataset's folder.
        files: the file on this machine for each of these paths.
        left_out: number of rows that were left out, by reason.
    """

    dataset: str
    targets: Mapping[str, int]
    files: Mapping[str, Path]
    left_out: Counter[str]


@dataclass
class _Rows:
    """Converts the paths in rows to paths below the dataset's folder; all rows must name one dataset."""

    root: Path
    split: str
    dataset: str | None = None
    written: dict[str, str] = field(default_factory=dict)

    def to_subpath(self, path: str) -> str:
        """Return the path below the dataset's folder.

        Raises:
            DatasetError: the path is not in this dataset and split.
        """
        prefix, subpath = split_prefix(path, self.split)
        name = (subpath and prefix.rpartition("/")[2]) or to_printable(self.root.resolve().name)
        if self.dataset is None and subpath:
            self.dataset = name
        if not subpath or name != self.dataset:
            wanted = f"{self.dataset or name}/{self.split}/XR_…"
            raise DatasetError(f"{path} is listed in the {self.split} CSV but is not in {wanted}.")
        return subpath


def read_labels(root: Path, split: str, found: Mapping[str, Path]) -> Labels | None:
    """Read the labels of a dataset's split from its CSV; None if the dataset has no CSV for it.

    Args:
        found: the images on disk by path below `root`. A row may also name one of them by another path with a link.

    Raises:
        DatasetError: an image has no row, a row has no image, or rows contradict each other.
    """
    rows = _Rows(root, split)
    left_out = Counter[str]()
    targets = _read_image_targets(rows, left_out)
    if targets is None:
        return None
    hidden = [subpath for subpath in targets if has_system_name(subpath)]
    left_out[HIDDEN] += len(hidden)
    targets = {subpath: target for subpath, target in targets.items() if subpath not in set(hidden)}
    name = rows.dataset or to_printable(root.resolve().name)
    if without_row := sorted(found.keys() - targets.keys()):
        raise DatasetError(listing([f"{name}/{subpath}" for subpath in without_row], f"have no row in the {split} CSV"))
    files = {subpath: found[subpath] for subpath in found}
    for subpath in sorted(targets.keys() - found.keys(), key=natural_sort_key):
        if (root / subpath).is_file() and is_image(root / subpath):
            files[subpath] = root / subpath
    _require_all(root, name, split, targets.keys() - files.keys())
    return Labels(name, targets, files, +left_out)


def _require_all(root: Path, name: str, split: str, missing: Iterable[str]) -> None:
    """Raise DatasetError if rows have no image on disk, or a file of another kind."""
    absent = sorted(subpath for subpath in missing if not (root / subpath).is_file())
    if absent:
        raise DatasetError(
            listing([f"{name}/{subpath}" for subpath in absent], f"are listed in the {split} CSV but are not on disk")
        )
    if unread := sorted(missing):
        kinds = ", ".join(sorted({file_kind(root / subpath) for subpath in unread}))
        raise DatasetError(
            listing([f"{name}/{subpath}" for subpath in unread], f"are listed in the {split} CSV but are {kinds}")
            + "; only PNG, JPEG and DICOM are read."
        )


def _read_image_targets(rows: _Rows, left_out: Counter[str]) -> dict[str, int] | None:
    """Return the target of each listed image, by path below the dataset's folder; None if there are no CSV files."""
    root, split = rows.root, rows.split
    image_labels = root / f"{split}.csv"
    if image_labels.is_file():
        return _read_targets(image_labels, rows, left_out)
    study_labels = root / f"{split}_labeled_studies.csv"
    image_paths = root / f"{split}_image_paths.csv"
    exists = [file.is_file() for file in (study_labels, image_paths)]
    if not any(exists):
        return None
    if not all(exists):
        raise DatasetError(f"{root} has only one of {study_labels.name} and {image_paths.name}; add the other.")
    by_study = _read_targets(study_labels, rows, left_out)
    images = [(path, rows.to_subpath(path)) for (path,) in read_paths(image_paths, 1)]
    without_study = [path for path, subpath in images if _folder(subpath) not in by_study]
    if without_study:
        raise DatasetError(listing(without_study, f"of {image_paths.name} have no row in {study_labels.name}"))
    left_out[LISTED_TWICE] += len(images) - len({subpath for _, subpath in images})
    left_out[WITHOUT_IMAGE] += len(by_study.keys() - {_folder(subpath) for _, subpath in images})
    return {subpath: by_study[_folder(subpath)] for _, subpath in images}


def _read_targets(file: Path, rows: _Rows, left_out: Counter[str]) -> dict[str, int]:
    """Read the target of each path. Raises DatasetError if a path has both targets."""
    targets: dict[str, int] = {}
    for path, value in read_paths(file, 2):
        subpath = rows.to_subpath(path)
        target = _parse_target(value, file)
        left_out[LISTED_TWICE] += subpath in targets
        if targets.setdefault(subpath, target) != target:
            raise DatasetError(f"{file.name} lists {path} with both labels.")
    return targets


def _folder(subpath: str) -> str:
    return PurePosixPath(subpath).parent.as_posix()


def _parse_target(value: str, file: Path) -> int:
    try:
        target = float(value)
    except ValueError:
        target = -1
    if target not in (0, 1):
        raise DatasetError(f"{file.name}: label {value!r} is neither 0 nor 1.")
    return int(target)
