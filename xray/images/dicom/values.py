"""Reads the values of a DICOM file's tags, which may be missing, multiple, not numeric, or damaged."""

from typing import Any

from pydicom import Dataset

from xray.errors import InputError, UnreadableImageError


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
