"""Finds what two splits of a dataset have in common: patients, which spoil every figure, and equal files."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xray.errors import DatasetError
from xray.mura.files import find_images, is_passed_over, listing
from xray.mura.fingerprint import UNREADABLE, digests
from xray.mura.studies import IMAGE_PATH, MuraRecord, Study, dataset_name, records_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Overlap:
    """What a split shares with another one.

    Attributes:
        other: name of the other split.
        patients: that are in both, whatever their body part.
        equal: images of the split whose file equals one of the other's byte by byte.
    """

    other: str
    patients: tuple[str, ...]
    equal: tuple[str, ...]


def require_disjoint(root: Path, split: str, studies: Sequence[Study], allow: bool) -> dict[str, int]:
    """Make sure that no patient of a split is in another split of the dataset.

    Equal files of different patients are logged only: datasets have them, and nobody knows whose they are.

    Args:
        allow: log shared patients instead of raising.

    Returns:
        How many patients are shared, by the other split's name; only splits that share any.

    Raises:
        DatasetError: says how many patients are shared with which split, and how to go on.
    """
    found = overlaps(root, split, studies)
    for overlap in found:
        if overlap.equal:
            log.warning(_equal_files(dataset_name(root), split, overlap))
    shared = [overlap for overlap in found if overlap.patients]
    for overlap in shared:
        sentence = _shared_patients(dataset_name(root), split, overlap)
        if not allow:
            raise DatasetError(f"{sentence} Keep each patient in one split, or go on with --allow-overlap.")
        log.warning(sentence)
    return {overlap.other: len(overlap.patients) for overlap in shared}


def overlaps(root: Path, split: str, studies: Sequence[Study]) -> list[Overlap]:
    """What a split shares with each other split of the dataset, which are its other folders that hold `XR_*`."""
    patients, records = {study.patient for study in studies}, records_of(studies)
    found = []
    for other in _other_splits(root, split):
        images = {f"{other}/{inner}": file for inner, file in find_images(root / other).images.items()}
        theirs = {parts["patient"] for parts in map(IMAGE_PATH.fullmatch, images) if parts}
        found.append(Overlap(other, tuple(sorted(patients & theirs)), _equal(records, images)))
    return found


def _other_splits(root: Path, split: str) -> list[str]:
    folders = (folder for folder in root.iterdir() if not is_passed_over(folder.name) and folder.is_dir())
    return sorted(folder.name for folder in folders if folder.name != split and any(folder.glob("XR_*")))


def _equal(records: Sequence[MuraRecord], images: Mapping[str, Path]) -> tuple[str, ...]:
    """The records whose file equals one of the images; only files of equal size are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for file in images.values():
        by_size[_size(file)].append(file)
    alike = [record for record in records if _size(record.file) in by_size]
    sizes = {_size(record.file) for record in alike} - {0}
    theirs = set(digests(file for size in sizes for file in by_size[size])) - {UNREADABLE}
    own = digests(record.file for record in alike)
    return tuple(record.path for record, digest in zip(alike, own, strict=True) if digest in theirs)


def _size(file: Path) -> int:
    """In bytes; 0 where there is no file."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _shared_patients(dataset: str, split: str, overlap: Overlap) -> str:
    shared = listing(list(overlap.patients), f"patients are in both {split} and {overlap.other} of {dataset}")
    return f"{shared}. What is measured of them says little about patients whom the network has not seen."


def _equal_files(dataset: str, split: str, overlap: Overlap) -> str:
    return listing(list(overlap.equal), f"images of {split} are byte for byte in {overlap.other} of {dataset} too")
