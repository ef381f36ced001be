"""A DICOM instance on its way between an archive and the service."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Instance:
    """A DICOM file and what it is called."""

    series_uid: str
    instance_uid: str
    sop_class_uid: str
    data: bytes
