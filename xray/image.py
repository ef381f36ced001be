"""PNG and JPEG bytes in, one `Radiograph` out: 8-bit gray, upright, bone bright.

Shapes: H, W are the height and width that a viewer shows, after the EXIF orientation.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from xray.errors import (
    InputError,
    NoContentError,
    TooManyPixelsError,
    UnreadableImageError,
    UnsupportedFormatError,
)
from xray.polarity import is_negative

MAX_PIXELS = 64_000_000
"""Default limit on width x height; the largest flat-panel detectors have 20 million pixels."""
MAX_ASPECT = 32
"""Longer side over shorter; beyond it nothing is a radiograph, and a square window of it would need a huge canvas."""
MAX_SCANS = 100
"""Of a progressive JPEG, each of which costs a pass over all pixels; encoders write about ten."""
MIN_SIDE = 16
"""Pixels; anything smaller cannot show a bone."""
MIN_CONTRAST = 8
"""Gray levels between the darkest and the brightest pixel, below which there is nothing to read."""

CHROMA = 40
"""Gray levels between a pixel's brightest and darkest channel, above which it has a colour; a tinted film has less."""
SKETCH_SIDE = 64
"""Pixels of the copy on which colours are looked for."""

SIGNATURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
DICOM_SIGNATURE = (128, b"DICM")
SCAN_MARKER = b"\xff\xda"
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to what makes the stored rows upright."""
LUMINANCE = "L"
DEEP_GRAY_MODES = ("I", "I;16", "I;16B", "I;16L")

PixelArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Radiograph:
    """One decoded X-ray.

    Attributes:
        pixels: (H, W) uint8, 0 = air, 255 = densest bone.
        inverted: whether the file showed bone dark and was turned round.
        coloured: share of the file's pixels that are plainly no gray.
    """

    pixels: PixelArray
    inverted: bool = False
    coloured: float = 0.0

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])


def read_radiograph(path: Path, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Decode a file; see `decode_radiograph`. OSError passes through when the file cannot be opened."""
    return decode_radiograph(path.read_bytes(), max_pixels)


def decoding_effort(data: bytes) -> int:
    """Pixels that decoding has to go over, in all scans of a progressive JPEG; 0 where the header tells of none.

    Only the header is read, so that a caller can put away what would take long.
    """
    try:
        format_name = _sniff(data)
        with Image.open(io.BytesIO(data), formats=(format_name,)) as image:
            return image.width * image.height * _scans(data, format_name)
    except Exception:  # as in `_gray_pixels`; decoding will say what is wrong
        return 0


def decode_radiograph(data: bytes, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Decode PNG or JPEG bytes of any bit depth, palette, alpha or orientation.

    Deep gray is reduced by its significant bits (a 12-bit image stored in 16 bits loses 4), colour to its
    luminance, transparency to black, and a radiograph with dark bone is inverted.

    Raises:
        UnsupportedFormatError: neither PNG nor JPEG.
        TooManyPixelsError: the header announces more than `max_pixels`; nothing was decoded.
        UnreadableImageError: truncated or corrupt, or a JPEG of more than `MAX_SCANS` scans.
        NoContentError: constant, a side below `MIN_SIDE` pixels, or longer than `MAX_ASPECT` times its width.
    """
    format_name = _sniff(data)
    pixels, coloured = _gray_pixels(data, format_name, max_pixels)
    if min(pixels.shape) < MIN_SIDE:
        raise NoContentError(
            f"The image is {pixels.shape[1]}x{pixels.shape[0]} pixels; each side must have at least {MIN_SIDE}."
        )
    if max(pixels.shape) > MAX_ASPECT * min(pixels.shape):
        raise NoContentError(f"The image is more than {MAX_ASPECT} times longer than wide; send a radiograph.")
    if int(pixels.max()) - int(pixels.min()) < MIN_CONTRAST:
        raise NoContentError("The image is constant; send a radiograph that shows anatomy.")
    inverted = is_negative(pixels)
    return Radiograph(255 - pixels if inverted else pixels, inverted, coloured)


def _sniff(data: bytes) -> str:
    for signature, name in SIGNATURES.items():
        if data.startswith(signature):
            return name
    start, signature = DICOM_SIGNATURE
    if data[start : start + len(signature)] == signature:
        raise UnsupportedFormatError("DICOM files are not read yet; send the radiograph as PNG or JPEG.")
    raise UnsupportedFormatError("The bytes are neither PNG nor JPEG; send the radiograph as one of these.")


def _scans(data: bytes, format_name: str) -> int:
    """Passes over all pixels: one, but for a progressive JPEG."""
    return data.count(SCAN_MARKER) if format_name == "JPEG" else 1


def _gray_pixels(data: bytes, format_name: str, max_pixels: int) -> tuple[PixelArray, float]:
    """The gray levels as a viewer shows them, and the share of coloured pixels."""
    if _scans(data, format_name) > MAX_SCANS:
        raise UnreadableImageError(f"The JPEG has more than {MAX_SCANS} scans; save it as an ordinary JPEG.")
    try:
        with Image.open(io.BytesIO(data), formats=(format_name,)) as image:
            if image.width * image.height > max_pixels:
                raise TooManyPixelsError(_too_many(f"{image.width}x{image.height} pixels", max_pixels))
            image.load()
            turn = UPRIGHT.get(_orientation(image))
            return _to_gray(image if turn is None else image.transpose(turn)), _coloured(image)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(_too_many("too large", max_pixels)) from error
    except Exception as error:  # Pillow reports damage as almost any type, depending on where in the file it lies
        raise UnreadableImageError(
            f"The {format_name} is truncated or corrupt; export it again and check that the whole file is sent."
        ) from error


def _orientation(image: Image.Image) -> int:
    """What EXIF says; 1, which is upright, where it says nothing that can be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # odd EXIF is common in sound images, and Pillow raises many types on it
        return 1


def _too_many(size: str, max_pixels: int) -> str:
    return f"The image is {size}; scale it down to at most {max_pixels:,} pixels."


def _to_gray(image: Image.Image) -> PixelArray:
    if image.mode in DEEP_GRAY_MODES:
        deep = np.asarray(image).clip(0, 0xFFFF).astype(np.uint16)
        significant_bits = max(8, int(deep.max()).bit_length())
        return (deep >> (significant_bits - 8)).astype(np.uint8)
    if image.has_transparency_data:
        upright = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", upright.size, "black"), upright)
    return np.asarray(image.convert(LUMINANCE)).copy()


def _coloured(image: Image.Image) -> float:
    """Share of pixels whose channels differ by more than `CHROMA`, on a small copy."""
    if image.mode in (LUMINANCE, "LA", "1", *DEEP_GRAY_MODES):
        return 0.0
    sketch = image.resize((SKETCH_SIDE, SKETCH_SIDE), Image.Resampling.NEAREST).convert("RGB")
    channels_HW3 = np.asarray(sketch).astype(np.int16)
    return float((channels_HW3.max(2) - channels_HW3.min(2) > CHROMA).mean())
