"""Reads from a DICOM header who the patient is.

Padding, case and character set do not matter, nor do the accents of a name.
"""

import unicodedata

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes

from xray.images.patient import DISTINCT_SEXES, Patient, comparable

REPLACEMENT = "\ufffd"
"""What a decoder writes for bytes that are not of the declared character set."""
DELIMITERS = {ord(each) for each in "\\^="}


def patient_of(header: Dataset) -> Patient:
    """The patient of a data set, which may be damaged in any way."""
    encodings = _encodings(header)

    def plain(keyword: str) -> str:
        return _plain(_raw(header, keyword), encodings)

    name = plain("PatientName").split("=")[0]  # the other groups write the same name in other scripts
    sex = plain("PatientSex")
    letters = unicodedata.normalize("NFKD", name.replace("^", " "))
    return Patient(
        plain("PatientID"),
        plain("IssuerOfPatientID"),
        "".join(each for each in plain("PatientBirthDate") if each.isdigit()),
        sex if sex in DISTINCT_SEXES else "",
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
