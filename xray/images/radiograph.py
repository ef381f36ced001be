"""What a radiograph is, whichever file it came in, and what no file may ask of us.

Shapes: H, W are the height and width that a viewer shows.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from xray.errors import NoContentError
from xray.images.margins import inside_margins
from xray.images.patient import Patient
from xray.images.polarity import is_negative

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
    """What a DICOM file says about its radiograph.

    Attributes:
        study_uid, series_uid, instance_uid: None where a tag is missing or no UID.
        body_part: as in MURA, `XR_*`; None where the tags name none that we know.
        laterality: `L`, `R`, `B` (both) or `U` (unpaired); None where the tags say nothing.
        view: `AP`, `LL` and so on, as tagged.
        spacing: millimetres between rows and between columns, at the detector where nothing else is given.
        burned_in: whether the tags say that the pixels name the patient (Burned In Annotation is YES).
        patient: to tell whether two files belong together. Never repeat it. It does not count in comparisons of facts,
            for a corrected name makes no other image.
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
    """A rectangle in pixels of the radiograph; its origin is the upper left corner."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.left + self.width)


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
    def content_pixels(self) -> PixelArray:
        """The pixels of `content`, (h, w) uint8."""
        return self.pixels if self.content is None else self.pixels[self.content.rows, self.content.columns]

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
    """Check what a viewer shows, look behind its margins, and invert it if bone is dark there.

    Args:
        negative: whether bone is dark, where the file says so; None judges it by the pixels inside the margins.
        content: what lies inside the file's display shutter, if it has one; margins are cut off inside it.

    Raises:
        NoContentError: what is inside is constant, has a side below `MIN_SIDE` pixels, or is longer than `MAX_ASPECT`
            times its width.
    """
    _require_size(pixels_HW.shape[0], pixels_HW.shape[1], pixel_aspect)
    content = _inside(pixels_HW, content)
    shown_hw = pixels_HW if content is None else pixels_HW[content.rows, content.columns]
    _require_size(shown_hw.shape[0], shown_hw.shape[1], pixel_aspect)
    if int(shown_hw.max()) - int(shown_hw.min()) < MIN_CONTRAST:
        raise NoContentError("The image is constant; send a radiograph that shows anatomy.")
    inverted = is_negative(shown_hw) if negative is None else negative
    return Radiograph(255 - pixels_HW if inverted else pixels_HW, inverted, coloured, dicom, content, pixel_aspect)


def _inside(pixels_HW: PixelArray, shutter: Box | None) -> Box | None:
    """What is left of the image, or of what its shutter shows, without margins; None if that is all of the image.

    Raises:
        NoContentError: the shutter shows nothing of the image.
    """
    top, left = (shutter.top, shutter.left) if shutter else (0, 0)
    shown_hw = pixels_HW[shutter.rows, shutter.columns] if shutter else pixels_HW
    if min(shown_hw.shape) < MIN_SIDE:
        raise NoContentError(f"The display shutter leaves less than {MIN_SIDE} pixels of the image.")
    rows, columns = inside_margins(shown_hw)
    box = Box(top + rows.start, left + columns.start, rows.stop - rows.start, columns.stop - columns.start)
    return None if (box.height, box.width) == pixels_HW.shape else box


def _require_size(height: int, width: int, pixel_aspect: float) -> None:
    if min(height, width) < MIN_SIDE:
        raise NoContentError(f"The image is {width}x{height} pixels; each side must have at least {MIN_SIDE}.")
    if not 1 / MAX_ASPECT <= height * pixel_aspect / width <= MAX_ASPECT:
        raise NoContentError(f"The image is more than {MAX_ASPECT} times longer than wide; send a radiograph.")


def too_many(size: str, max_pixels: int) -> str:
    """The sentence of a `TooManyPixelsError`."""
    return f"The image is {size}; scale it down to at most {max_pixels:,} pixels."
