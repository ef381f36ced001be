"""What tells a result of ours from another object under the same UID, however an archive has stored it."""

import io
import json
from hashlib import sha256

from pydicom import Dataset, dcmread

MEANING = (
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
"""An archive may add to the rest, and may correct the patient."""


def proof_of(data: bytes) -> bytes:
    """The digest of what the object in a file means. Raises almost anything for one that is damaged."""
    dataset = dcmread(io.BytesIO(data))
    chosen = Dataset()
    for keyword in MEANING:
        if keyword in dataset:
            chosen[keyword] = dataset[keyword]
    digest = sha256(json.dumps(chosen.to_json_dict(), sort_keys=True).encode())
    digest.update(dataset.get("PixelData", b""))
    return digest.digest()
