"""Defines a radiograph, independent of its file format, and the limits for every image.

Shapes: H, W are the height and width that a viewer shows.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from xray.errors import NoContentError
from xray.images.margins import inside_margins
from xray.images.patient_identity import Patient
from xray.images.polarity import is_negative

MAX_PIXELS = 64_000_000
"""Default limit on width x height; the largest flat-panel detectors have 20 million pixels."""
MAX_ASPECT = 32
"""Limit on the longer side over the shorter. No radiograph is longer, and a square window of it would need a huge
canvas."""
MIN_SIDE = 16
"""Minimum height and width in pixels; a smaller image cannot show a bone."""
MIN_CONTRAST = 8
"""Minimum number of gray levels between the darkest and the brightest pixel; with fewer, nothing can be seen."""

PixelArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class DicomFacts:
    """The part of a radiograph that only DICOM files have: facts from their tags.

    Attributes:
        study_uid, series_uid, instance_uid: UIDs; None if a tag is missing or is not a UID.
        body_part: as in MURA, `XR_*`; None if the tags name no known limb.
        laterality: `L`, `R`, `B` (both) or `U` (unpaired); None if the tags do not say.
        view: `AP`, `LL` and so on, as tagged.
        spacing: millimeters between rows and between columns; at the detector if the file has no calibrated spacing.
        burned_in: whether the tags say that the pixels name the patient (Burned In Annotation is YES).
        patient: the patient, to check whether two files belong together. Never log or return it. Comparisons ignore it,
            because a corrected name does not change the image.
    """

    study_uid: str | None
    series_uid: str | None
    instance_uid: str | None
    body_part: str | None = None
    laterality: str | None = None
    view: str | None = None
    spacing: tuple[float, float] | None = None
    burned_in: bool = False
    patient: Patient = field(default=Patient(), repr=False, compare=False)


@dataclass(frozen=True)
class Box:
    """A rectangle of a radiograph, such as its content, in pixels; the origin is the upper left corner."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """The rows of a radiograph's array (H, W) that are in the box."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """The columns of a radiograph's array (H, W) that are in the box."""
        return slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Radiograph:
    """One decoded radiograph, whatever its file format.

    Attributes:
        pixels: (H, W) uint8, 0 = air, 255 = densest bone.
        inverted: whether bone was dark in the file; `pixels` has been inverted then.
        color_share: share of the file's pixels that are clearly colored.
        dicom: None unless the file is DICOM.
        content: the part that the network sees, without margins, collimation and shutter; None means the whole image.
        pixel_aspect: physical height of a pixel over its width; 1 for square pixels.
    """

    pixels: PixelArray
    inverted: bool = False
    color_share: float = 0.0
    dicom: DicomFacts | None = None
    content: Box | None = None
    pixel_aspect: float = 1.0

    @classmethod
    def from_pixels(
        cls,
        pixels_HW: PixelArray,
        color_share: float = 0.0,
        dicom: DicomFacts | None = None,
        *,
        bone_is_dark: bool | None = None,
        shutter: Box | None = None,
        pixel_aspect: float = 1.0,
    ) -> Self:
        """Make a radiograph of the pixels that a viewer shows: check them, find their content, invert dark bone.

        Args:
            bone_is_dark: polarity from the file; None decides by the pixels inside the margins.
            shutter: visible part of the display shutter, if the file has one; margins are searched inside it.

        Raises:
            NoContentError: the content is constant, has a side below `MIN_SIDE` pixels, or is more than `MAX_ASPECT`
                times longer than wide.
        """
        _require_size(pixels_HW.shape[0], pixels_HW.shape[1], pixel_aspect)
        content = _find_content(pixels_HW, shutter)
        shown_hw = pixels_HW if content is None else pixels_HW[content.rows, content.columns]
        _require_size(shown_hw.shape[0], shown_hw.shape[1], pixel_aspect)
        if int(shown_hw.max()) - int(shown_hw.min()) < MIN_CONTRAST:
            raise NoContentError("The image is constant; send a radiograph that shows anatomy.")
        inverted = is_negative(shown_hw) if bone_is_dark is None else bone_is_dark
        return cls(255 - pixels_HW if inverted else pixels_HW, inverted, color_share, dicom, content, pixel_aspect)

    @property
    def content_pixels(self) -> PixelArray:
        """The pixels of the radiograph's `content`, (h, w) uint8."""
        return self.pixels if self.content is None else self.pixels[self.content.rows, self.content.columns]

    @property
    def height(self) -> int:
        """H, the height of the radiograph in pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """W, the width of the radiograph in pixels."""
        return int(self.pixels.shape[1])


def _find_content(pixels_HW: PixelArray, shutter: Box | None) -> Box | None:
    """Find the part of the image, or of its shutter, inside the margins; None if that is the whole image.

    Raises:
        NoContentError: the shutter shows almost nothing of the image.
    """
    top, left = (shutter.top, shutter.left) if shutter else (0, 0)
    shown_hw = pixels_HW[shutter.rows, shutter.columns] if shutter else pixels_HW
    if min(shown_hw.shape) < MIN_SIDE:
        raise NoContentError(f"The display shutter shows fewer than {MIN_SIDE} pixels on a side of the image.")
    rows, columns = inside_margins(shown_hw)
    box = Box(top + rows.start, left + columns.start, rows.stop - rows.start, columns.stop - columns.start)
    return None if (box.height, box.width) == pixels_HW.shape else box


def _require_size(height: int, width: int, pixel_aspect: float) -> None:
    if min(height, width) < MIN_SIDE:
        raise NoContentError(f"The image is {width}x{height} pixels; each side must have at least {MIN_SIDE}.")
    if not 1 / MAX_ASPECT <= height * pixel_aspect / width <= MAX_ASPECT:
        raise NoContentError(f"The image is more than {MAX_ASPECT} times as long as it is wide; send a radiograph.")
