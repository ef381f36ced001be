"""Compares the patients of two radiographs by the attributes in the files.

Keep these values out of logs, errors and responses.
"""

import hashlib
import unicodedata
from dataclasses import dataclass, field
from typing import Protocol

MAX_LENGTH = 256
"""Maximum length of a value in characters, four times DICOM's limit; a longer value is replaced by its hash."""
DISTINCT_SEXES = ("f", "m")
"""Values of Patient's Sex that contradict each other; "other" and "unknown" contradict nothing."""


@dataclass(frozen=True)
class Patient:
    """The identity of a radiograph's patient, in normalized values; empty if the file does not say."""

    id: str = field(default="", repr=False)
    issuer: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)
    sex: str = field(default="", repr=False)
    name: str = field(default="", repr=False)


class PatientIdentity(Protocol):
    """Values that identify a patient for comparing, or digests of such values; empty if unknown."""

    @property
    def id(self) -> str: ...
    @property
    def issuer(self) -> str: ...
    @property
    def birth_date(self) -> str: ...
    @property
    def sex(self) -> str: ...
    @property
    def name(self) -> str: ...


def is_same_patient(one: PatientIdentity, other: PatientIdentity) -> bool:
    """Return whether the identities from two radiographs' files can belong to the same patient.

    The IDs must be equal or both missing; if they are missing, the names must be equal. Issuer, date of birth and sex
    must not contradict each other. If both dates of birth are known, the names may differ, because a name may be
    corrected between two views.
    """
    if one.id != other.id:
        return False
    if any(_contradict(getattr(one, each), getattr(other, each)) for each in ("issuer", "birth_date", "sex")):
        return False
    if not one.id:
        return one.name == other.name
    return one.birth_date == other.birth_date != "" or not _contradict(one.name, other.name)


def normalize_text(text: str) -> str:
    """Normalize a text of a patient's identity, as in `Patient`: without padding, in one case and one Unicode form."""
    text = " ".join(unicodedata.normalize("NFKC", text.strip(" \0\t\r\n")).casefold().split())
    return text if len(text) <= MAX_LENGTH else hashlib.sha256(text.encode()).hexdigest()


def _contradict(one: str, other: str) -> bool:
    return bool(one and other) and one != other
