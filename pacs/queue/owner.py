"""Which study it is and whose, as keyed digests: they can be compared, and tell nobody who the patient is."""

from dataclasses import dataclass, fields
from typing import Self

from pacs.queue.encryption import Seal
from xray.images.patient import Patient, is_same_patient

DIGEST_DIGITS = 32
SEPARATOR = ":"


def study_id(seal: Seal, study_uid: str) -> str:
    """What a study is called in the database."""
    return seal.digest("study", study_uid).hex()[:DIGEST_DIGITS]


@dataclass(frozen=True)
class Owner:
    """A digest for each thing that tells patients apart; empty where it is not known."""

    id: str = ""
    issuer: str = ""
    birth_date: str = ""
    sex: str = ""
    name: str = ""

    @classmethod
    def of(cls, seal: Seal, patient: Patient) -> Self:
        def digest(name: str) -> str:
            value: str = getattr(patient, name)
            return seal.digest(f"patient {name}", value).hex()[:DIGEST_DIGITS] if value else ""

        return cls(*(digest(each.name) for each in fields(cls)))

    @classmethod
    def from_text(cls, text: str) -> Self:
        return cls(*text.split(SEPARATOR))

    def text(self) -> str:
        return SEPARATOR.join(getattr(self, each.name) for each in fields(self))

    def is_same_patient(self, other: Self) -> bool:
        """See `xray.images.patient.is_same_patient`."""
        return is_same_patient(self, other)

    def completed_by(self, other: Self) -> Self:
        """What is known of the same patient when `other` is known, too."""
        return type(self)(*(getattr(self, each.name) or getattr(other, each.name) for each in fields(self)))
