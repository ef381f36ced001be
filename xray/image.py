"""PNG and JPEG bytes in, one `Radiograph` out: 8-bit gray, upright after the EXIF orientation, bone bright."""

import io
from typing import Literal

import numpy as np
from PIL import ExifTags, Image

from xray.errors import InputError, TooManyPixelsError, UnreadableImageError
from xray.radiograph import MAX_PIXELS, PixelArray, Radiograph, radiograph_of, too_many, without_low_bits

MAX_SCANS = 100
"""Of a progressive JPEG, each of which costs a pass over all pixels; encoders write about ten."""
CHROMA = 40
"""Gray levels between a pixel's brightest and darkest channel, above which it has a colour; a tinted film has less."""
SKETCH_SIDE = 64
"""Pixels of the copy on which colours are looked for."""

ImageFormat = Literal["PNG", "JPEG"]
SIGNATURES: dict[bytes, ImageFormat] = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
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


def format_of(data: bytes) -> ImageFormat | None:
    """By its first bytes; None if it is neither."""
    return next((name for signature, name in SIGNATURES.items() if data.startswith(signature)), None)


def image_effort(data: bytes, format_name: ImageFormat) -> int:
    """Pixels that decoding has to go over, in all scans of a progressive JPEG; 0 where the header tells of none."""
    try:
        with Image.open(io.BytesIO(data), formats=(format_name,)) as image:
            return image.width * image.height * _scans(data, format_name)
    except Exception:  # as in `_gray_pixels`; decoding will say what is wrong
        return 0


def decode_image(data: bytes, format_name: ImageFormat, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Decode PNG or JPEG bytes of any bit depth, palette, alpha or orientation.

    Deep gray is reduced by its significant bits (a 12-bit image stored in 16 bits loses 4), colour to its
    luminance, transparency to black, and a radiograph with dark bone is inverted.

    Raises:
        TooManyPixelsError: the header announces more than `max_pixels`; nothing was decoded.
        UnreadableImageError: truncated or corrupt, or a JPEG of more than `MAX_SCANS` scans.
        NoContentError: see `radiograph_of`.
    """
    return radiograph_of(*_gray_pixels(data, format_name, max_pixels))


def _scans(data: bytes, format_name: ImageFormat) -> int:
    """Passes over all pixels: one, but for a progressive JPEG."""
    return data.count(SCAN_MARKER) if format_name == "JPEG" else 1


def _gray_pixels(data: bytes, format_name: ImageFormat, max_pixels: int) -> tuple[PixelArray, float]:
    """The gray levels as a viewer shows them, and the share of coloured pixels."""
    if _scans(data, format_name) > MAX_SCANS:
        raise UnreadableImageError(f"The JPEG has more than {MAX_SCANS} scans; save it as an ordinary JPEG.")
    try:
        with Image.open(io.BytesIO(data), formats=(format_name,)) as image:
            if image.width * image.height > max_pixels:
                raise TooManyPixelsError(too_many(f"{image.width}x{image.height} pixels", max_pixels))
            image.load()
            turn = UPRIGHT.get(_orientation(image))
            return _to_gray(image if turn is None else image.transpose(turn)), _coloured(image)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(too_many("too large", max_pixels)) from error
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


def _to_gray(image: Image.Image) -> PixelArray:
    if image.mode in DEEP_GRAY_MODES:
        return without_low_bits(np.asarray(image).clip(0, 0xFFFF).astype(np.uint16))
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
