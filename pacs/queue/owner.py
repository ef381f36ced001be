"""Which study it is and whose, as keyed digests: they can be compared, and tell nobody who the patient is."""

from dataclasses import dataclass, fields
from typing import Self

from pacs.queue.encryption import Cipher
from xray.images.dicom.patient import Patient

DIGEST_DIGITS = 32
SEPARATOR = ":"
DISTINCT_SEXES = ("f", "m")


def study_id(cipher: Cipher, study_uid: str) -> str:
    """What a study is called in the database."""
    return cipher.digest("study", study_uid).hex()[:DIGEST_DIGITS]


@dataclass(frozen=True)
class Owner:
    """A digest for each thing that tells patients apart; empty where it is not known."""

    id: str = ""
    issuer: str = ""
    birth_date: str = ""
    sex: str = ""
    name: str = ""

    @classmethod
    def of(cls, cipher: Cipher, patient: Patient) -> Self:
        def digest(name: str) -> str:
            value: str = getattr(patient, name)
            if name == "sex" and value not in DISTINCT_SEXES:
                return ""  # other and unknown contradict nothing
            return cipher.digest(f"patient {name}", value).hex()[:DIGEST_DIGITS] if value else ""

        return cls(*(digest(each.name) for each in fields(cls)))

    @classmethod
    def from_text(cls, text: str) -> Self:
        return cls(*text.split(SEPARATOR))

    def text(self) -> str:
        return SEPARATOR.join(getattr(self, each.name) for each in fields(self))

    def is_same_patient(self, other: Self) -> bool:
        """Whether nothing contradicts it.

        The identifiers have to be equal, or missing on both sides. Without them the names have to be the same. Where
        they and the dates of birth are known and equal, the name does not matter: it may have been corrected between
        two views; else it may be missing on one side.
        """
        if self.id != other.id:
            return False
        if any(_contradict(getattr(self, each), getattr(other, each)) for each in ("issuer", "birth_date", "sex")):
            return False
        if not self.id:
            return self.name == other.name
        return self.birth_date == other.birth_date != "" or not _contradict(self.name, other.name)

    def completed_by(self, other: Self) -> Self:
        """What is known of the same patient when `other` is known, too."""
        return type(self)(*(getattr(self, each.name) or getattr(other, each.name) for each in fields(self)))


def _contradict(one: str, other: str) -> bool:
    return bool(one and other) and one != other
