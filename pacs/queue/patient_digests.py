"""Keyed digests of a study and its patient, which can be compared without revealing the patient's identity."""

from dataclasses import dataclass, fields
from typing import Self

from pacs.queue.encryption import Cipher
from xray.images.patient_identity import Patient, is_same_patient

DIGEST_DIGITS = 32
"""Hexadecimal digits of a digest: 128 bits, so that two values never collide by chance."""
SEPARATOR = ":"
"""Separator between the hexadecimal digests in the database."""


def study_id(cipher: Cipher, study_uid: str) -> str:
    """Return the keyed digest of a study, made like a patient's; it is the study's ID in the queue's database.

    The Study Instance UID is digested.
    """
    return cipher.digest("study", study_uid).hex()[:DIGEST_DIGITS]


@dataclass(frozen=True)
class PatientDigests:
    """A patient's digests, one for each attribute that distinguishes patients; empty if the attribute is unknown."""

    id: str = ""
    issuer: str = ""
    birth_date: str = ""
    sex: str = ""
    name: str = ""

    @classmethod
    def from_patient(cls, cipher: Cipher, patient: Patient) -> Self:
        """Digest the attributes of a patient with the queue's key."""

        def digest(name: str) -> str:
            value: str = getattr(patient, name)
            return cipher.digest(f"patient {name}", value).hex()[:DIGEST_DIGITS] if value else ""

        return cls(*(digest(each.name) for each in fields(cls)))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse a patient's digests from the output of `to_text`."""
        return cls(*text.split(SEPARATOR))

    def to_text(self) -> str:
        """Return all digests of the patient as one text for the database."""
        return SEPARATOR.join(getattr(self, each.name) for each in fields(self))

    def is_same_patient(self, other: Self) -> bool:
        """Compare the digests of two patients; see `xray.images.patient_identity.is_same_patient`."""
        return is_same_patient(self, other)

    def merged_with(self, other: Self) -> Self:
        """Return the patient's digests, completed by those of the same patient that only `other` has."""
        return type(self)(*(getattr(self, each.name) or getattr(other, each.name) for each in fields(self)))
