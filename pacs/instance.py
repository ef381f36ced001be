"""A DICOM file with its UIDs, in the form that the archive client, the queue and the results exchange."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Instance:
    """A DICOM instance: its file and its UIDs; `data` is empty if only the UIDs are needed."""

    series_uid: str
    instance_uid: str
    sop_class_uid: str
    data: bytes
