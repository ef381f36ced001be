"""Reads the tags of a DICOM file that describe its image, and refuses images that cannot be analyzed."""

import math
from dataclasses import dataclass

from pydicom import Dataset

from xray.errors import OutOfScopeError, TooManyPixelsError, UnreadableImageError, too_many_pixels_message
from xray.images.dicom.body_parts import is_other_body_part, to_mura_body_part
from xray.images.dicom.grayscale import StoredBits, has_window
from xray.images.dicom.object_kind import SkipReason, skip_reason
from xray.images.dicom.patient_tags import read_patient
from xray.images.dicom.values import describe, get_numbers, read_code, read_integer, read_text, read_uid, tag_name
from xray.images.patient_identity import Patient
from xray.images.radiograph import DicomFacts

GRAYSCALE = ("MONOCHROME1", "MONOCHROME2")
"""Values of Photometric Interpretation for images with one gray channel."""
MAX_BITS_ALLOCATED = 16
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
"""Tags for the millimeters between rows and between columns; the first one with two numbers is used."""
MAX_SPACING_MM = 100
"""A larger spacing must be in another unit, so only its ratio is used."""
MAX_PIXEL_ASPECT = 8
"""Maximum ratio of a pixel's longer side to its shorter; detectors have 1, some old readers 2."""


@dataclass(frozen=True)
class Identity:
    """The tags of a DICOM file that identify its object: the UIDs, the modality and the patient.

    Attributes:
        modality: None if the tag is missing or is not a code string.
        patient: the patient of the object; never log or return it.
    """

    study_uid: str
    series_uid: str
    instance_uid: str
    sop_class_uid: str
    modality: str | None
    patient: Patient

    @property
    def skip_reason(self) -> SkipReason | None:
        """Why the DICOM object with these tags is not analyzed; None for a radiograph."""
        return skip_reason(self.modality, self.sop_class_uid)

    @property
    def is_radiograph(self) -> bool:
        """Whether the DICOM object with these tags is analyzed."""
        return self.skip_reason is None


def read_identity(header: Dataset) -> Identity:
    """Read the tags of a DICOM file that identify its object: the UIDs, the modality and the patient.

    Raises:
        UnreadableImageError: a UID is missing.
    """

    def read_required(keyword: str) -> str:
        found = read_uid(header, keyword)
        if found is None:
            raise UnreadableImageError(f"{describe(header, keyword)}; export the file again.")
        return found

    return Identity(
        read_required("StudyInstanceUID"),
        read_required("SeriesInstanceUID"),
        read_required("SOPInstanceUID"),
        read_required("SOPClassUID"),
        read_code(header, "Modality"),
        read_patient(header),
    )


def require_radiograph(header: Dataset) -> None:
    """Refuse a DICOM image by its tags unless it is one grayscale radiograph of a limb, ready to be shown.

    Raises:
        OutOfScopeError: it is something else.
        UnreadableImageError: the tags contradict each other.
    """
    reason = skip_reason(read_code(header, "Modality"), read_uid(header, "SOPClassUID") or "")
    if reason is not None:
        sop_class = "" if reason == "another modality" else f", and the object is of {reason}"
        raise OutOfScopeError(f"{describe(header, 'Modality')}{sop_class}; send radiographs, which are CR or DX.")
    if read_integer(header, "NumberOfFrames", 1) not in (0, 1):
        raise OutOfScopeError(f"{describe(header, 'NumberOfFrames')}; send the radiographs as files of one frame each.")
    photometric = read_code(header, "PhotometricInterpretation")
    if photometric in GRAYSCALE and read_integer(header, "SamplesPerPixel", 1) != 1:
        raise UnreadableImageError(
            f"{describe(header, 'SamplesPerPixel')} where (0028,0004) Photometric Interpretation is {photometric}, "
            "which has 1; export the file again."
        )
    if photometric not in GRAYSCALE:
        raise OutOfScopeError(
            f"{describe(header, 'PhotometricInterpretation')}; send the detector's own image, which is MONOCHROME1 or "
            "MONOCHROME2, and no screenshot."
        )
    if read_code(header, "PresentationIntentType") == "FOR PROCESSING" and not has_window(header):
        raise OutOfScopeError(
            f"{describe(header, 'PresentationIntentType')}, and no window says how to show it; send the image FOR "
            "PRESENTATION."
        )
    if is_other_body_part(read_text(header, "BodyPartExamined")):
        raise OutOfScopeError(
            f"{describe(header, 'BodyPartExamined')}; send radiographs of arms, legs or their girdles."
        )


def read_shape(header: Dataset, max_pixels: int) -> tuple[int, int]:
    """Read the tags that describe a DICOM image's size: its rows and columns.

    Raises:
        TooManyPixelsError: the image has more than `max_pixels`.
        UnreadableImageError: a tag is missing or not positive.
    """
    height, width = read_integer(header, "Rows"), read_integer(header, "Columns")
    if height < 1 or width < 1:
        raise UnreadableImageError(f"{describe(header, 'Rows')}, {describe(header, 'Columns')}; export the file again.")
    if height * width > max_pixels:
        raise TooManyPixelsError(too_many_pixels_message(f"{width}x{height} pixels", max_pixels))
    return height, width


def read_stored_bits(header: Dataset) -> StoredBits:
    """Read the tags that describe a DICOM image's bits: the position of the stored values in their words.

    Raises:
        UnreadableImageError: the tags contradict each other, or a word has neither 8 nor 16 bits.
    """
    allocated, stored = read_integer(header, "BitsAllocated"), read_integer(header, "BitsStored")
    high_bit = read_integer(header, "HighBit", stored - 1)
    if allocated not in (8, MAX_BITS_ALLOCATED) or not 1 <= stored <= high_bit + 1 <= allocated:
        wrong = ", ".join(describe(header, each) for each in ("BitsAllocated", "BitsStored", "HighBit"))
        raise UnreadableImageError(f"{wrong}; these do not fit together for an image of 8 or 16 bits.")
    if (representation := read_integer(header, "PixelRepresentation", 0)) not in (0, 1):
        raise UnreadableImageError(f"{describe(header, 'PixelRepresentation')}; it is 0 or 1. Export the file again.")
    signed = representation == 1
    return StoredBits(stored, high_bit, -(1 << (stored - 1)) if signed else 0)


def read_facts(header: Dataset) -> DicomFacts:
    """Read from a DICOM file's tags the facts that callers and later steps need."""
    return DicomFacts(
        read_uid(header, "StudyInstanceUID"),
        read_uid(header, "SeriesInstanceUID"),
        read_uid(header, "SOPInstanceUID"),
        to_mura_body_part(read_text(header, "BodyPartExamined")),
        read_code(header, "ImageLaterality") or read_code(header, "Laterality"),
        read_code(header, "ViewPosition"),
        _read_spacing(header),
        read_code(header, "BurnedInAnnotation") == "YES",
        read_patient(header),
    )


def read_pixel_aspect(header: Dataset) -> float:
    """Read the tags that describe a DICOM image's spacing: a pixel's height over its width; 1 if none says otherwise.

    Raises:
        UnreadableImageError: one side is more than `MAX_PIXEL_ASPECT` times as long as the other.
    """
    keyword, pair = next(
        ((each, pair) for each in (*SPACINGS, "PixelAspectRatio") if (pair := _read_pair(header, each))),
        ("", (1.0, 1.0)),
    )
    rows, columns = pair
    if max(pair) > MAX_PIXEL_ASPECT * min(pair):
        raise UnreadableImageError(
            f"{tag_name(keyword)} says that a side of a pixel is {max(pair) / min(pair):.0f} times as long as the "
            "other; export the file again."
        )
    return rows / columns


def _read_spacing(header: Dataset) -> tuple[float, float] | None:
    """Read the spacing of rows and columns in millimeters: calibrated, else at the detector, else on the film."""
    pairs = (_read_pair(header, each) for each in SPACINGS)
    return next((pair for pair in pairs if pair and max(pair) < MAX_SPACING_MM), None)


def _read_pair(header: Dataset, keyword: str) -> tuple[float, float] | None:
    """Read two positive numbers, vertical and horizontal; None for any other value, which is not an error."""
    numbers = get_numbers(header, keyword)
    return (numbers[0], numbers[1]) if len(numbers) == 2 and all(0 < each < math.inf for each in numbers) else None
