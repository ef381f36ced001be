"""Who a radiograph's patient is, as far as its file says, written so that equal patients are equal.

Keep it out of logs, errors and replies.
"""

import hashlib
import unicodedata
from dataclasses import dataclass, field
from typing import Protocol

LONGEST = 256
"""Characters of a value, four times what the standard allows; longer ones are compared by their hash."""
DISTINCT_SEXES = ("f", "m")
"""Other and unknown contradict nothing."""


@dataclass(frozen=True)
class Patient:
    """What tells patients apart; empty where the file does not say."""

    id: str = field(default="", repr=False)
    issuer: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)
    sex: str = field(default="", repr=False)
    name: str = field(default="", repr=False)


class Identifying(Protocol):
    """Values that tell patients apart, or digests of them; empty where they are not known."""

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


def is_same_patient(one: Identifying, other: Identifying) -> bool:
    """Whether two files can belong to the same patient.

    The identifiers must be equal, or missing on both sides; without them the names must be equal. Issuer, date of birth
    and sex must not contradict each other. Where both dates of birth are known, the names may differ: a name may be
    corrected between two views.
    """
    if one.id != other.id:
        return False
    if any(_contradict(getattr(one, each), getattr(other, each)) for each in ("issuer", "birth_date", "sex")):
        return False
    if not one.id:
        return one.name == other.name
    return one.birth_date == other.birth_date != "" or not _contradict(one.name, other.name)


def comparable(text: str) -> str:
    """The text as it is in a `Patient`."""
    text = " ".join(unicodedata.normalize("NFKC", text.strip(" \0\t\r\n")).casefold().split())
    return text if len(text) <= LONGEST else hashlib.sha256(text.encode()).hexdigest()


def _contradict(one: str, other: str) -> bool:
    return bool(one and other) and one != other
