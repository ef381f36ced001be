"""What the tags of a DICOM file say about its image: the facts, or a refusal that names the tag.

A tag's value is repeated in a message only where it is a code string: anything else may be a patient's.
"""

import math
import re
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.tag import Tag

from xray.errors import OutOfScopeError, TooManyPixelsError, UnreadableImageError
from xray.images.dicom.body_parts import body_part_of, is_elsewhere
from xray.images.dicom.grayscale import StoredBits, has_window
from xray.images.dicom.object_kind import LeftAlone, left_alone
from xray.images.dicom.patient import patient_of
from xray.images.dicom.values import numbers_of, value_of
from xray.images.patient import Patient
from xray.images.radiograph import DicomFacts, too_many

GRAY = ("MONOCHROME1", "MONOCHROME2")
CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")
UID = re.compile(r"[0-9.]{1,64}")
MAX_BITS = 16
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
"""Millimetres between rows and between columns; the first that holds two numbers counts."""
MAX_SPACING = 100
"""Millimetres. What is larger was written in another unit: its ratio still counts, and as a spacing it does not."""
MAX_PIXEL_ASPECT = 8
"""Of a pixel's sides; detectors have 1, some old readers 2."""


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
    def left_alone(self) -> LeftAlone | None:
        """Why it is not analyzed; None for a radiograph."""
        return left_alone(self.modality, self.sop_class_uid)

    @property
    def is_radiograph(self) -> bool:
        return self.left_alone is None


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
    reason = left_alone(text(header, "Modality"), uid(header, "SOPClassUID") or "")
    if reason is not None:
        beside = "" if reason == "another modality" else f", and the object is of {reason}"
        raise OutOfScopeError(f"{named(header, 'Modality')}{beside}; send radiographs, which are CR or DX.")
    if whole(header, "NumberOfFrames", 1) not in (0, 1):
        raise OutOfScopeError(f"{named(header, 'NumberOfFrames')}; send the radiographs as files of one frame each.")
    photometric = text(header, "PhotometricInterpretation")
    if photometric in GRAY and whole(header, "SamplesPerPixel", 1) != 1:
        raise UnreadableImageError(
            f"{named(header, 'SamplesPerPixel')} where (0028,0004) Photometric Interpretation is {photometric}, which "
            "has 1; export the file again."
        )
    if photometric not in GRAY:
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
    if (representation := whole(header, "PixelRepresentation", 0)) not in (0, 1):
        raise UnreadableImageError(f"{named(header, 'PixelRepresentation')}; it is 0 or 1. Export the file again.")
    signed = representation == 1
    return StoredBits(stored, high_bit, -(1 << (stored - 1)) if signed else 0)


def facts_of(header: Dataset) -> DicomFacts:
    """What callers and later steps need to know of the study."""
    return DicomFacts(
        uid(header, "StudyInstanceUID"),
        uid(header, "SeriesInstanceUID"),
        uid(header, "SOPInstanceUID"),
        body_part_of(_written(header, "BodyPartExamined")),
        text(header, "ImageLaterality") or text(header, "Laterality"),
        text(header, "ViewPosition"),
        _spacing(header),
        text(header, "BurnedInAnnotation") == "YES",
        patient_of(header),
    )


def named(header: Dataset, keyword: str) -> str:
    """`(0008,0060) Modality is CT`."""
    value = value_of(header, keyword)
    shown = str(value) if isinstance(value, int) else text(header, keyword)
    says = "is missing" if value in (None, "") else f"is {shown}" if shown else "has a value that it cannot have"
    return f"{tag_name(keyword)} {says}"


def tag_name(keyword: str) -> str:
    """`(0008,0060) Modality`."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, f"{keyword} is a keyword of the standard"
    return f"{Tag(tag)} {dictionary_description(tag)}"


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
    value = value_of(header, keyword)
    if value in (None, "") and otherwise is not None:
        return otherwise
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise UnreadableImageError(f"{named(header, keyword)}; export the file again.") from error


def _written(header: Dataset, keyword: str) -> str:
    """As it stands in the file, however odd: never to be repeated."""
    value = value_of(header, keyword)
    return "" if value is None else str(value).strip()


def pixel_aspect_of(header: Dataset) -> float:
    """Height of a pixel over its width; 1 where no tag says otherwise.

    Raises:
        UnreadableImageError: the tags say that a side is more than `MAX_PIXEL_ASPECT` times as long as the other.
    """
    keyword, pair = next(
        ((each, pair) for each in (*SPACINGS, "PixelAspectRatio") if (pair := _pair(header, each))), ("", (1.0, 1.0))
    )
    rows, columns = pair
    if max(pair) > MAX_PIXEL_ASPECT * min(pair):
        raise UnreadableImageError(
            f"{tag_name(keyword)} says that a side of a pixel is {max(pair) / min(pair):.0f} times as long as the "
            "other; export the file again."
        )
    return rows / columns


def _spacing(header: Dataset) -> tuple[float, float] | None:
    """Calibrated where somebody has, else at the detector or on the film; millimetres."""
    pairs = (_pair(header, each) for each in SPACINGS)
    return next((pair for pair in pairs if pair and max(pair) < MAX_SPACING), None)


def _pair(header: Dataset, keyword: str) -> tuple[float, float] | None:
    """Down and across; None where the tag is not there or holds no two such numbers: nobody is refused for that."""
    numbers = numbers_of(header, keyword)
    return (numbers[0], numbers[1]) if len(numbers) == 2 and all(0 < each < math.inf for each in numbers) else None
