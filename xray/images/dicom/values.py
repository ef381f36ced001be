"""Values of a DICOM file's tags, which may be missing, one or several, no numbers, or damaged."""

from typing import Any

from pydicom import Dataset

from xray.errors import InputError, UnreadableImageError


def value_of(header: Dataset, keyword: str) -> Any:
    """None where the tag is not there.

    Raises:
        InputError: the tag cannot be parsed, which pydicom only tries now.
    """
    try:
        return header.get(keyword)
    except InputError:
        raise
    except Exception as error:  # pydicom reports damage as almost any type
        raise UnreadableImageError(f"The tag {keyword} is damaged; export the file again.") from error


def values_of(header: Dataset, keyword: str) -> list[Any]:
    """All values of a tag; empty where it is not there or has none. Raises as `value_of` does."""
    value = value_of(header, keyword)
    if value in (None, ""):
        return []
    return [value] if isinstance(value, str | bytes | int | float) else list(value)


def numbers_of(header: Dataset, keyword: str) -> list[float]:
    """The same as numbers; what is none is NaN."""
    return [_number(each) for each in values_of(header, keyword)]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
