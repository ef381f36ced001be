"""The errors for a DICOM data set whose structure is damaged."""

from typing import NoReturn

from pydicom.datadict import dictionary_description, dictionary_has_tag
from pydicom.tag import Tag

from xray.errors import UnreadableImageError

SEND_WHOLE = "export it again and check that the whole file is sent"
"""The advice in the error messages for a damaged file."""


class TruncatedError(UnreadableImageError):
    """The layout error of a DICOM data set that ends too early."""


def describe_tag(tag: int) -> str:
    """For a layout error, name a data set's tag: `(0008,0060) Modality`; only the number if it is not standard."""
    return f"{Tag(tag)} {dictionary_description(tag)}" if dictionary_has_tag(tag) else str(Tag(tag))


def refuse_truncated(tag: int) -> NoReturn:
    """Raise TruncatedError for a DICOM data set that ends within the value of a tag."""
    raise TruncatedError(f"The DICOM file is truncated: it ends within {describe_tag(tag)}; {SEND_WHOLE}.")


def refuse_corrupt(tag: int) -> NoReturn:
    """Raise UnreadableImageError for a data set with a tag whose value has an invalid structure."""
    raise UnreadableImageError(f"The DICOM file is corrupt: {describe_tag(tag)} cannot be read; {SEND_WHOLE}.")


def refuse_order(tag: int, twice: bool) -> NoReturn:
    """Raise UnreadableImageError for a data set with a tag that is repeated or out of order."""
    raise UnreadableImageError(
        f"{describe_tag(tag)} occurs {'twice in the file' if twice else 'after a later tag'}; export the file again."
    )
