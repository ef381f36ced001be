"""What the tags of a DICOM file say of its image in, a refusal that names the tag or the facts out.

A tag's value is repeated in a message only where it is a code string: anything else may be a patient's.
"""

import re
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.tag import Tag

from xray.body_parts import body_part_of, is_elsewhere
from xray.errors import InputError, OutOfScopeError, TooManyPixelsError, UnreadableImageError
from xray.grayscale import StoredBits, has_window
from xray.patient import Patient, patient_of
from xray.radiograph import DicomFacts, too_many

MODALITIES = ("CR", "DX")
GRAY = ("MONOCHROME1", "MONOCHROME2")
CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")
UID = re.compile(r"[0-9.]{1,64}")
MAX_BITS = 16


@dataclass(frozen=True)
class Identity:
    """Which object a file holds.

    Attributes:
        modality: None where the tag is missing or odd.
        patient: whom it belongs to; never to be repeated.
    """

    study_uid: str
    series_uid: str
    instance_uid: str
    sop_class_uid: str
    modality: str | None
    patient: Patient

    @property
    def is_radiograph(self) -> bool:
        return self.modality in MODALITIES


def identity_of(header: Dataset) -> Identity:
    """Raises UnreadableImageError where a UID is missing."""

    def required(keyword: str) -> str:
        found = uid(header, keyword)
        if found is None:
            raise UnreadableImageError(f"{named(header, keyword)}; export the file again.")
        return found

    return Identity(
        required("StudyInstanceUID"),
        required("SeriesInstanceUID"),
        required("SOPInstanceUID"),
        required("SOPClassUID"),
        text(header, "Modality"),
        patient_of(header),
    )


def require_radiograph(header: Dataset) -> None:
    """Raises OutOfScopeError unless it is one gray image of a limb by an X-ray detector, ready to be shown."""
    if text(header, "Modality") not in MODALITIES:
        raise OutOfScopeError(f"{named(header, 'Modality')}; send radiographs, which are CR or DX.")
    if whole(header, "NumberOfFrames", 1) != 1:
        raise OutOfScopeError(f"{named(header, 'NumberOfFrames')}; send the radiographs as files of one frame each.")
    if whole(header, "SamplesPerPixel", 1) != 1 or text(header, "PhotometricInterpretation") not in GRAY:
        raise OutOfScopeError(
            f"{named(header, 'PhotometricInterpretation')}; send the detector's own image, which is MONOCHROME1 or "
            "MONOCHROME2, and no screenshot."
        )
    if text(header, "PresentationIntentType") == "FOR PROCESSING" and not has_window(header):
        raise OutOfScopeError(
            f"{named(header, 'PresentationIntentType')}, and no window says how to show it; send the image FOR "
            "PRESENTATION."
        )
    if is_elsewhere(_written(header, "BodyPartExamined")):
        raise OutOfScopeError(f"{named(header, 'BodyPartExamined')}; send radiographs of arms, legs or their girdles.")


def shape_of(header: Dataset, max_pixels: int) -> tuple[int, int]:
    """Rows and columns.

    Raises:
        TooManyPixelsError: more than `max_pixels`.
        UnreadableImageError: there are none.
    """
    height, width = whole(header, "Rows"), whole(header, "Columns")
    if height < 1 or width < 1:
        raise UnreadableImageError(f"{named(header, 'Rows')}, {named(header, 'Columns')}; export the file again.")
    if height * width > max_pixels:
        raise TooManyPixelsError(too_many(f"{width}x{height} pixels", max_pixels))
    return height, width


def bits_of(header: Dataset) -> StoredBits:
    """Raises UnreadableImageError unless the stored bits fit in words of 8 or 16."""
    allocated, stored = whole(header, "BitsAllocated"), whole(header, "BitsStored")
    high_bit = whole(header, "HighBit", stored - 1)
    if allocated not in (8, MAX_BITS) or not 1 <= stored <= high_bit + 1 <= allocated:
        wrong = ", ".join(named(header, each) for each in ("BitsAllocated", "BitsStored", "HighBit"))
        raise UnreadableImageError(f"{wrong}; these do not fit together for an image of 8 or 16 bits.")
    signed = whole(header, "PixelRepresentation", 0) == 1
    return StoredBits(stored, high_bit, -(1 << (stored - 1)) if signed else 0)


def facts_of(header: Dataset) -> DicomFacts:
    """What callers and later steps need of the study, without the patient."""
    return DicomFacts(
        uid(header, "StudyInstanceUID"),
        uid(header, "SeriesInstanceUID"),
        uid(header, "SOPInstanceUID"),
        body_part_of(_written(header, "BodyPartExamined")),
        text(header, "ImageLaterality") or text(header, "Laterality"),
        text(header, "ViewPosition"),
        _spacing(header),
        text(header, "BurnedInAnnotation") == "YES",
    )


def named(header: Dataset, keyword: str) -> str:
    """`(0008,0060) Modality is CT`."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, f"{keyword} is a keyword of the standard"
    value = header.get(keyword)
    shown = str(value) if isinstance(value, int) else text(header, keyword)
    says = "is missing" if value in (None, "") else f"is {shown}" if shown else "has a value that it cannot have"
    return f"{Tag(tag)} {dictionary_description(tag)} {says}"


def text(header: Dataset, keyword: str) -> str | None:
    """A code string; None where there is none or something else."""
    value = _written(header, keyword)
    return value if CODE_STRING.fullmatch(value) else None


def uid(header: Dataset, keyword: str) -> str | None:
    value = _written(header, keyword)
    return value if UID.fullmatch(value) else None


def whole(header: Dataset, keyword: str, otherwise: int | None = None) -> int:
    """A whole number; `otherwise` where the tag is not there.

    Raises:
        UnreadableImageError: it is no number, or not there and has to be.
    """
    value = _value(header, keyword)
    if value in (None, "") and otherwise is not None:
        return otherwise
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise UnreadableImageError(f"{named(header, keyword)}; export the file again.") from error


def _written(header: Dataset, keyword: str) -> str:
    """As it stands in the file, however odd: never to be repeated."""
    value = _value(header, keyword)
    return "" if value is None else str(value).strip()


def _value(header: Dataset, keyword: str) -> Any:
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


def _spacing(header: Dataset) -> tuple[float, float] | None:
    """Calibrated where somebody has, else at the detector; millimetres."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            rows, columns = (float(each) for each in _value(header, keyword))
        except (TypeError, ValueError, UnreadableImageError):
            continue  # not there or not two numbers: nobody is refused for that
        if 0 < rows < 100 and 0 < columns < 100:
            return rows, columns
    return None
