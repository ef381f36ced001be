"""Keyed digests of a study and its patient, which can be compared without revealing who the patient is."""

from dataclasses import dataclass, fields
from typing import Self

from pacs.queue.encryption import Cipher
from xray.images.dicom.patient import Patient

DIGEST_DIGITS = 32
"""Hexadecimal digits of a digest: 128 bits, so that two values never collide by chance."""
SEPARATOR = ":"
"""Between the digests in the database, which are hexadecimal."""
DISTINCT_SEXES = ("f", "m")
"""Sexes that contradict each other; "other" and "unknown" are compatible with any."""


def study_id(cipher: Cipher, study_uid: str) -> str:
    """Return the id of a study in the database, a keyed digest of its Study Instance UID."""
    return cipher.digest("study", study_uid).hex()[:DIGEST_DIGITS]


@dataclass(frozen=True)
class PatientDigests:
    """One digest for each attribute that distinguishes patients; empty where the attribute is unknown."""

    id: str = ""
    issuer: str = ""
    birth_date: str = ""
    sex: str = ""
    name: str = ""

    @classmethod
    def from_patient(cls, cipher: Cipher, patient: Patient) -> Self:
        """Digest the attributes of a patient."""

        def digest(name: str) -> str:
            value: str = getattr(patient, name)
            if name == "sex" and value not in DISTINCT_SEXES:
                return ""
            return cipher.digest(f"patient {name}", value).hex()[:DIGEST_DIGITS] if value else ""

        return cls(*(digest(each.name) for each in fields(cls)))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse what `to_text` returned."""
        return cls(*text.split(SEPARATOR))

    def to_text(self) -> str:
        """Return all digests as one text for the database."""
        return SEPARATOR.join(getattr(self, each.name) for each in fields(self))

    def is_same_patient(self, other: Self) -> bool:
        """Whether both can be the same patient: no attribute contradicts the other's.

        The identifiers must be equal, or missing on both sides. Without identifiers, the names must be equal. Where
        identifiers and birth dates are known and equal, the names may differ, because a name may be corrected between
        two views. Otherwise a name may be missing on one side.
        """
        if self.id != other.id:
            return False
        if any(_contradict(getattr(self, each), getattr(other, each)) for each in ("issuer", "birth_date", "sex")):
            return False
        if not self.id:
            return self.name == other.name
        return self.birth_date == other.birth_date != "" or not _contradict(self.name, other.name)

    def merged_with(self, other: Self) -> Self:
        """Return these digests, completed by those of the same patient that only `other` has."""
        return type(self)(*(getattr(self, each.name) or getattr(other, each.name) for each in fields(self)))


def _contradict(one: str, other: str) -> bool:
    return bool(one and other) and one != other
