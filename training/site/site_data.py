"""A site's studies: their radiographs, their description for manifests, and whether a checkpoint has used them.

Legend: N studies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xray.errors import DatasetError
from xray.images.radiograph import Radiograph
from xray.mura.fingerprint import UNREADABLE, compute_digests
from xray.mura.studies import MuraRecord, Study, compute_fingerprint, dataset_name, records_of
from xray.network.checkpoint import Checkpoint, TrainingData
from xray.types import LABELS

MIN_PATIENTS = 50
"""Minimum number of patients with a study of either class. Fewer say too little, whatever their figures are, and
thresholds that are fitted to fewer do not hold."""


@dataclass(frozen=True)
class SiteImages:
    """A site's studies and the radiographs of all of them, in the order of their records."""

    studies: Sequence[Study]
    radiographs: Sequence[Radiograph]

    @property
    def targets_N(self) -> npt.NDArray[np.int64]:
        """The targets of the site's studies."""
        return np.array([study.target for study in self.studies])

    def rows(self, chosen_N: npt.NDArray[np.bool_]) -> "SiteImages":
        """Return only the chosen studies of the site."""
        counts = [len(study.records) for study in self.studies]
        kept = np.repeat(chosen_N, counts)
        return SiteImages(
            [study for study, chosen in zip(self.studies, chosen_N, strict=True) if chosen],
            [each for each, chosen in zip(self.radiographs, kept, strict=True) if chosen],
        )


def require_enough(studies: Sequence[Study]) -> None:
    """Check that a site has enough patients of either class to fit something to its studies.

    Raises:
        DatasetError: it has fewer than `MIN_PATIENTS`.
    """
    for target, label in enumerate(LABELS):
        count = len({study.patient for study in studies if study.target == target})
        if count < MIN_PATIENTS:
            raise DatasetError(
                f"{count} patients have {label} studies in scope; collect at least {MIN_PATIENTS}, so that what is "
                "fitted to them holds for others."
            )


def image_digests(records: Sequence[MuraRecord]) -> dict[str, str]:
    """Return the SHA-256 of each of a site's images, by the path of its record."""
    digests = compute_digests(record.file for record in records)
    return dict(zip((record.path for record in records), digests, strict=True))


def describe_data(root: Path, studies: Sequence[Study], digests: Mapping[str, str]) -> TrainingData:
    """Describe a site's studies for a manifest.

    Args:
        root: the site's folder.
        digests: SHA-256 of each image, by the path of its record.
    """
    records = records_of(studies)
    return TrainingData(dataset_name(root), len(studies), len(records), compute_fingerprint(records, digests))


def require_unused(checkpoint: Checkpoint, site: TrainingData, digests: Mapping[str, str]) -> None:
    """Check that a checkpoint was neither trained on a site's studies nor adapted to any of their images.

    Raises:
        DatasetError: it was, so that its figures on them would be too good.
    """
    manifest = checkpoint.manifest
    if site.fingerprint == manifest.training_data.fingerprint:
        raise DatasetError(f"Checkpoint {manifest.id} was trained on these studies; give studies of other patients.")
    used = checkpoint.adapted_images & (set(digests.values()) - {UNREADABLE})
    if used:
        raise DatasetError(
            f"Checkpoint {manifest.id} was adapted to {len(used)} of these {len(digests)} images, so its figures on "
            "them would be too good; give studies of other patients."
        )
