"""Who the tags of a DICOM file say the patient is, written so that equal patients are equal.

Padding, case and the character set do not matter, nor do the accents of a name. What is returned is the patient's:
keep it out of logs, errors and replies.
"""

import hashlib
import unicodedata
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes

LONGEST = 256
"""Characters of a value, four times what the standard allows; longer ones are compared by their hash."""
REPLACEMENT = "\ufffd"
"""What a decoder writes for bytes that are not of the declared character set."""
DELIMITERS = {ord(each) for each in "\\^="}


@dataclass(frozen=True)
class Patient:
    """What tells patients apart; empty where the file does not say."""

    id: str = field(default="", repr=False)
    issuer: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)
    sex: str = field(default="", repr=False)
    name: str = field(default="", repr=False)


def patient_of(header: Dataset) -> Patient:
    """The patient of a data set, which may be damaged in any way."""
    encodings = _encodings(header)

    def plain(keyword: str) -> str:
        return _plain(_raw(header, keyword), encodings)

    name = plain("PatientName").split("=")[0]  # the other groups write the same name in other scripts
    letters = unicodedata.normalize("NFKD", name.replace("^", " "))
    return Patient(
        plain("PatientID"),
        plain("IssuerOfPatientID"),
        "".join(each for each in plain("PatientBirthDate") if each.isdigit()),
        plain("PatientSex"),
        " ".join("".join(each for each in letters if not unicodedata.combining(each)).split()),
    )


def _encodings(header: Dataset) -> list[str]:
    declared = _raw(header, "SpecificCharacterSet").decode("ascii", "replace").strip(" \0")
    try:
        return convert_encodings(declared.split("\\"))
    except (LookupError, ValueError):
        return ["iso8859"]


def _raw(header: Dataset, keyword: str) -> bytes:
    """The value's bytes as they stand in the file; none where there is no such tag."""
    element = header.get_item(keyword)
    value = getattr(element, "value", None)
    if value is None:
        return b""
    return value if isinstance(value, bytes) else str(value).encode()


def _plain(raw: bytes, encodings: list[str]) -> str:
    try:
        text = decode_bytes(raw, encodings, DELIMITERS)
    except (LookupError, ValueError):
        text = REPLACEMENT
    if REPLACEMENT in text:
        text = raw.decode("latin-1")  # so that what differs stays different
    return comparable(text)


def comparable(text: str) -> str:
    """The text as it is in a `Patient`."""
    text = " ".join(unicodedata.normalize("NFKC", text.strip(" \0\t\r\n")).casefold().split())
    return text if len(text) <= LONGEST else hashlib.sha256(text.encode()).hexdigest()
