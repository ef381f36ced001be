"""Finds patients and equal files that two splits of a dataset share; shared patients bias every metric."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xray.errors import DatasetError
from xray.mura.files import find_images, is_system_name, listing
from xray.mura.fingerprint import UNREADABLE, compute_digests
from xray.mura.studies import IMAGE_PATH, MuraRecord, Study, dataset_name, records_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Overlap:
    """Patients and equal files that a dataset's split shares with another split.

    Attributes:
        other: name of the other split.
        patients: the patients that are in both, with any body part.
        equal: the images of the split that equal an image of the other split byte for byte.
    """

    other: str
    patients: tuple[str, ...]
    equal: tuple[str, ...]


def require_disjoint(root: Path, split: str, studies: Sequence[Study], allow: bool) -> dict[str, int]:
    """Check that no patient of a split is in another split of the dataset.

    Equal files of different patients are only logged, because some datasets have them and the true patient is unknown.

    Args:
        allow: log shared patients instead of raising.

    Returns:
        The number of shared patients, by the name of the other split, for splits that share any.

    Raises:
        DatasetError: patients are shared, and `allow` is False.
    """
    found = find_overlaps(root, split, studies)
    for overlap in found:
        if overlap.equal:
            log.warning(_equal_files(dataset_name(root), split, overlap))
    shared = [overlap for overlap in found if overlap.patients]
    for overlap in shared:
        sentence = _shared_patients(dataset_name(root), split, overlap)
        if not allow:
            raise DatasetError(f"{sentence} Keep each patient in one split, or continue with --allow-overlap.")
        log.warning(sentence)
    return {overlap.other: len(overlap.patients) for overlap in shared}


def find_overlaps(root: Path, split: str, studies: Sequence[Study]) -> list[Overlap]:
    """Find the overlap of a split with each other split of the dataset: with each other folder that has `XR_*`."""
    patients = {study.patient for study in studies}
    records = records_of(studies)
    found = []
    for other in _other_splits(root, split):
        images = {f"{other}/{subpath}": file for subpath, file in find_images(root / other).images.items()}
        theirs = {parts["patient"] for parts in map(IMAGE_PATH.fullmatch, images) if parts}
        found.append(Overlap(other, tuple(sorted(patients & theirs)), _find_equal(records, images)))
    return found


def _other_splits(root: Path, split: str) -> list[str]:
    folders = (folder for folder in root.iterdir() if not is_system_name(folder.name) and folder.is_dir())
    return sorted(folder.name for folder in folders if folder.name != split and any(folder.glob("XR_*")))


def _find_equal(records: Sequence[MuraRecord], images: Mapping[str, Path]) -> tuple[str, ...]:
    """Return the paths of the records whose file equals one of the images; only files of equal size are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for file in images.values():
        by_size[_size(file)].append(file)
    alike = [record for record in records if _size(record.file) in by_size]
    sizes = {_size(record.file) for record in alike} - {0}
    theirs = set(compute_digests(file for size in sizes for file in by_size[size])) - {UNREADABLE}
    own = compute_digests(record.file for record in alike)
    return tuple(record.path for record, digest in zip(alike, own, strict=True) if digest in theirs)


def _size(file: Path) -> int:
    """Return the size of a file in bytes; 0 if it does not exist."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _shared_patients(dataset: str, split: str, overlap: Overlap) -> str:
    shared = listing(list(overlap.patients), f"patients are in both {split} and {overlap.other} of {dataset}")
    return f"{shared}. Metrics on them say little about patients that the network has not seen."


def _equal_files(dataset: str, split: str, overlap: Overlap) -> str:
    return listing(list(overlap.equal), f"images of {split} are byte for byte in {overlap.other} of {dataset} too")
