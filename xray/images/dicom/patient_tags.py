"""Reads the patient from the tags of a DICOM file.

The result does not depend on padding, case or character set, nor on the accents of a name.
"""

import unicodedata

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes

from xray.images.patient_identity import DISTINCT_SEXES, Patient, normalize_text

REPLACEMENT = "\ufffd"
"""The character that a decoder writes for bytes outside the declared character set."""
DELIMITERS = {ord(each) for each in "\\^="}
"""Characters at which the character set of a text value is reset (PS3.5, 6.1.2.5.3)."""


def read_patient(header: Dataset) -> Patient:
    """Return the patient from a DICOM file's tags; never fails, even if tags are damaged."""
    encodings = _encodings(header)

    def read(keyword: str) -> str:
        return _decode(_raw_value(header, keyword), encodings)

    name = read("PatientName").split("=")[0]  # the other groups write the same name in other scripts
    sex = read("PatientSex")
    letters = unicodedata.normalize("NFKD", name.replace("^", " "))
    return Patient(
        read("PatientID"),
        read("IssuerOfPatientID"),
        "".join(each for each in read("PatientBirthDate") if each.isdigit()),
        sex if sex in DISTINCT_SEXES else "",
        " ".join("".join(each for each in letters if not unicodedata.combining(each)).split()),
    )


def _encodings(header: Dataset) -> list[str]:
    declared = _raw_value(header, "SpecificCharacterSet").decode("ascii", "replace").strip(" \0")
    try:
        return convert_encodings(declared.split("\\"))
    except (LookupError, ValueError):
        return ["iso8859"]


def _raw_value(header: Dataset, keyword: str) -> bytes:
    """Return the bytes of a value as they are in the file; empty if the tag is missing."""
    element = header.get_item(keyword)
    value = getattr(element, "value", None)
    if value is None:
        return b""
    return value if isinstance(value, bytes) else str(value).encode()


def _decode(raw: bytes, encodings: list[str]) -> str:
    try:
        text = decode_bytes(raw, encodings, DELIMITERS)
    except (LookupError, ValueError):
        text = REPLACEMENT
    if REPLACEMENT in text:
        text = raw.decode("latin-1")  # Latin-1 decodes any bytes, so different values stay different
    return normalize_text(text)
