"""A DICOM file together with its UIDs, as the archive client, the queue and the results exchange it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Instance:
    """A DICOM file and its UIDs; `data` is empty where only the UIDs are needed."""

    series_uid: str
    instance_uid: str
    sop_class_uid: str
    data: bytes
