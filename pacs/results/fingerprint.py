"""Fingerprints of results, to tell whether an archive's object is our result or another object with its UID."""

import io
import json
from hashlib import sha256

from pydicom import Dataset, dcmread

IDENTIFYING_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "Rows",
    "Columns",
    "CompletionFlag",
    "VerificationFlag",
    "ContentSequence",
    "PredecessorDocumentsSequence",
)
"""Attributes that an archive does not change. It may add other attributes and correct the patient's."""


def compute_fingerprint(data: bytes) -> bytes:
    """Return a DICOM file's fingerprint: the SHA-256 of its identifying attributes and pixels, whatever its encoding.

    Raises:
        Exception: the file is damaged; almost any type is possible, so call this in a worker process.
    """
    dataset = dcmread(io.BytesIO(data))
    chosen = Dataset()
    for keyword in IDENTIFYING_KEYWORDS:
        if keyword in dataset:
            chosen[keyword] = dataset[keyword]
    digest = sha256(json.dumps(chosen.to_json_dict(), sort_keys=True).encode())
    digest.update(dataset.get("PixelData", b""))
    return digest.digest()
