"""Reads the values of a DICOM file's tags, which may be missing, multiple, not numeric, or damaged.

An error message names the tag. It repeats the value only of a number or a code string, because any other value may
identify a patient.
"""

import re
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.tag import Tag

from xray.errors import InputError, UnreadableImageError

CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")
"""A value of VR CS (PS3.5, 6.2)."""
UID_PATTERN = re.compile(r"[0-9.]{1,64}")
"""A value of VR UI (PS3.5, 6.2)."""


def get_value(header: Dataset, keyword: str) -> Any:
    """Return the value of a DICOM tag; None if the tag is missing.

    Raises:
        UnreadableImageError: the tag cannot be parsed; pydicom parses it only on access.
    """
    try:
        return header.get(keyword)
    except InputError:
        raise
    except Exception as error:  # pydicom raises almost any type on damaged data
        raise UnreadableImageError(f"The tag {keyword} is damaged; export the file again.") from error


def get_values(header: Dataset, keyword: str) -> list[Any]:
    """Return all values of a DICOM tag; empty if it is missing or empty. Raises the same errors as `get_value`."""
    value = get_value(header, keyword)
    if value in (None, ""):
        return []
    return [value] if isinstance(value, str | bytes | int | float) else list(value)


def get_numbers(header: Dataset, keyword: str) -> list[float]:
    """Return all values of a DICOM tag as numbers; NaN for other values. Raises the same errors as `get_value`."""
    return [_to_number(each) for each in get_values(header, keyword)]


def _to_number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def describe(header: Dataset, keyword: str) -> str:
    """Describe one of a DICOM image's tags in the error that refuses the image: `(0008,0060) Modality is CT`."""
    value = get_value(header, keyword)
    shown = str(value) if isinstance(value, int) else read_code(header, keyword)
    says = "is missing" if value in (None, "") else f"is {shown}" if shown else "has an invalid value"
    return f"{tag_name(keyword)} {says}"


def tag_name(keyword: str) -> str:
    """Return the number and name of a DICOM tag: `(0008,0060) Modality`."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, f"{keyword} is a keyword of the standard"
    return f"{Tag(tag)} {dictionary_description(tag)}"


def read_code(header: Dataset, keyword: str) -> str | None:
    """Read a code string from the tags that describe a DICOM image; None if it is missing or is not a code string."""
    value = read_text(header, keyword)
    return value if CODE_STRING.fullmatch(value) else None


def read_uid(header: Dataset, keyword: str) -> str | None:
    """Read a UID from the tags that describe a DICOM file or its image; None if it is missing or is not a UID."""
    value = read_text(header, keyword)
    return value if UID_PATTERN.fullmatch(value) else None


def read_integer(header: Dataset, keyword: str, default: int | None = None) -> int:
    """Read an integer from the tags that describe a DICOM image, or `default` if the tag is missing.

    Raises:
        UnreadableImageError: the value is not a number, or the tag is missing and has no default.
    """
    value = get_value(header, keyword)
    if value in (None, "") and default is not None:
        return default
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise UnreadableImageError(f"{describe(header, keyword)}; export the file again.") from error


def read_text(header: Dataset, keyword: str) -> str:
    """Read a value as it is in the file; never log or return it, because it may identify a patient."""
    value = get_value(header, keyword)
    return "" if value is None else str(value).strip()
