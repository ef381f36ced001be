"""Defines the attributes of a gallery's radiographs, and stores them as a Parquet table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import pyarrow
from pyarrow import parquet

from xray.errors import ArtifactError
from xray.mura.studies import study_key

UNKNOWN = "unknown"
"""Value of an attribute that an archive does not state."""


@dataclass(frozen=True)
class GalleryEntry:
    """One radiograph of a gallery, with its attributes.

    Attributes:
        path: path within the dataset, independent of this machine; for a hospital's archive, a pseudonymous reference.
        label: `normal`, `abnormal` or `UNKNOWN`; body part, patient and study may be `UNKNOWN` too.
    """

    path: str
    body_part: str
    patient: str
    study: str
    label: str

    @property
    def study_key(self) -> str:
        """Return the unique key of a gallery entry's study; for an archive's study, its pseudonymous reference."""
        return self.study if self.patient == UNKNOWN else study_key(self.body_part, self.patient, self.study)


def write_entries(file: Path, entries: Sequence[GalleryEntry]) -> None:
    """Write a gallery's entries to a Parquet file, one row per entry."""
    parquet.write_table(pyarrow.Table.from_pylist([asdict(entry) for entry in entries]), file)


def read_entries(file: Path) -> tuple[GalleryEntry, ...]:
    """Read a gallery's entries from their Parquet file, in the order in which they were written.

    Raises:
        ArtifactError: the file is not a Parquet table of entries.
    """
    try:
        return msgspec.convert(parquet.read_table(file).to_pylist(), tuple[GalleryEntry, ...])
    except (pyarrow.ArrowException, msgspec.ValidationError, OSError) as error:
        raise ArtifactError(f"{file} does not contain a gallery's entries: {error}") from error
