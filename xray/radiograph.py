"""What a radiograph is, whichever file it came in, and what no file may ask of us.

Shapes: H, W are the height and width that a viewer shows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xray.errors import NoContentError
from xray.polarity import is_negative

MAX_PIXELS = 64_000_000
"""Default limit on width x height; the largest flat-panel detectors have 20 million pixels."""
MAX_ASPECT = 32
"""Longer side over shorter; beyond it nothing is a radiograph, and a square window of it would need a huge canvas."""
MIN_SIDE = 16
"""Pixels; anything smaller cannot show a bone."""
MIN_CONTRAST = 8
"""Gray levels between the darkest and the brightest pixel, below which there is nothing to read."""

PixelArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class DicomFacts:
    """What a DICOM file says about its radiograph. Nothing here is the patient's.

    Attributes:
        study_uid, series_uid, instance_uid: None where a tag is missing or no UID.
        body_part: as in MURA, `XR_*`; None where the tags name none that we know.
        laterality: `L`, `R`, `B` (both) or `U` (unpaired); None where the tags say nothing.
        view: `AP`, `LL` and so on, as tagged.
        spacing: millimetres between rows and between columns, at the detector where nothing else is given.
        burned_in: whether the tags say that the pixels name the patient (Burned In Annotation is YES).
    """

    study_uid: str | None
    series_uid: str | None
    instance_uid: str | None
    body_part: str | None = None
    laterality: str | None = None
    view: str | None = None
    spacing: tuple[float, float] | None = None
    burned_in: bool = False


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the radiograph; its origin is the upper left corner."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Radiograph:
    """One decoded X-ray.

    Attributes:
        pixels: (H, W) uint8, 0 = air, 255 = densest bone.
        inverted: whether the file showed bone dark and was inverted.
        coloured: share of the file's pixels that are plainly no gray.
        dicom: None unless it came in a DICOM file.
        content: the part inside margins, collimation and shutter, which the network sees; None means all of it.
        pixel_aspect: height of a pixel over its width, in millimetres; 1 for square pixels.
    """

    pixels: PixelArray
    inverted: bool = False
    coloured: float = 0.0
    dicom: DicomFacts | None = None
    content: Box | None = None
    pixel_aspect: float = 1.0

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])


def radiograph_of(
    pixels_HW: PixelArray,
    coloured: float = 0.0,
    dicom: DicomFacts | None = None,
    *,
    negative: bool | None = None,
    content: Box | None = None,
    pixel_aspect: float = 1.0,
) -> Radiograph:
    """Check what a viewer shows and invert it if bone is dark.

    Args:
        negative: whether bone is dark, where the file says so; None judges it by the pixels.
        content: what lies inside the file's display shutter, if it has one.

    Raises:
        NoContentError: constant, a side below `MIN_SIDE` pixels, or longer than `MAX_ASPECT` times its width.
    """
    if min(pixels_HW.shape) < MIN_SIDE:
        raise NoContentError(
            f"The image is {pixels_HW.shape[1]}x{pixels_HW.shape[0]} pixels; each side must have at least {MIN_SIDE}."
        )
    if max(pixels_HW.shape) > MAX_ASPECT * min(pixels_HW.shape):
        raise NoContentError(f"The image is more than {MAX_ASPECT} times longer than wide; send a radiograph.")
    if int(pixels_HW.max()) - int(pixels_HW.min()) < MIN_CONTRAST:
        raise NoContentError("The image is constant; send a radiograph that shows anatomy.")
    inverted = is_negative(pixels_HW) if negative is None else negative
    return Radiograph(255 - pixels_HW if inverted else pixels_HW, inverted, coloured, dicom, content, pixel_aspect)


def without_low_bits(deep: npt.NDArray[Any]) -> PixelArray:
    """Gray levels of more than 8 bits by their 8 highest significant ones; 12 bits stored in 16 lose 4."""
    significant_bits = max(8, int(deep.max()).bit_length())
    return (deep >> (significant_bits - 8)).astype(np.uint8)


def too_many(size: str, max_pixels: int) -> str:
    """The sentence of a `TooManyPixelsError`."""
    return f"The image is {size}; scale it down to at most {max_pixels:,} pixels."
