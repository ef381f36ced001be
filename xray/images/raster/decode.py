"""Decodes a PNG or JPEG file to a `Radiograph`: 8-bit gray, upright by the EXIF orientation, bone bright.

Pillow decodes images with 8 bits, and gray PNG with 16 bits. `high_bit_depth` decodes what Pillow cannot decode or
would reduce to 8 bits: PNG with 16 bits and several channels, JPEG with 12 bits, lossless JPEG, and JPEG-LS.
"""

import io
import sys
from typing import Literal

import numpy as np
from PIL import ExifTags, Image

from xray.errors import (
    InputError,
    TooManyPixelsError,
    UnreadableImageError,
    UnsupportedFormatError,
    too_many_pixels_message,
)
from xray.images.levels import significant_levels
from xray.images.radiograph import MAX_PIXELS, PixelArray, Radiograph
from xray.images.raster import jpeg_segments, png_chunks
from xray.images.raster.high_bit_depth import (
    THUMBNAIL_SIDE,
    decode_high_bit_jpeg,
    decode_high_bit_png,
    measure_color_share,
)
from xray.images.raster.jpeg_segments import JPEG_LS, JpegHeader
from xray.images.raster.png_chunks import GRAY, PngHeader

MAX_SCANS = 100
"""Limit on the scans of a progressive JPEG, each of which processes all pixels; encoders write about ten."""
UNKNOWN_EFFORT = sys.maxsize
"""The effort for a file that may take any amount of time and memory to decode."""
HIGH_BIT_DEPTH = 16
"""Bit depth of PNG files that Pillow reduces to 8 bits if they have more than one channel."""
PILLOW_PROCESSES = ("baseline", "extended sequential", "progressive", "arithmetic sequential", "arithmetic progressive")
"""Processes of 8-bit JPEG that Pillow decodes."""
IMAGECODECS_PROCESSES = ("extended sequential", "progressive", "lossless", JPEG_LS)
"""Processes of JPEG that imagecodecs decodes."""

ImageFormat = Literal["PNG", "JPEG"]
SIGNATURES: dict[bytes, ImageFormat] = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
ORIENTATION_TRANSFORMS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transform that makes an image upright, for each EXIF orientation."""
LUMINANCE = "L"
"""Pillow's mode for 8-bit gray."""
HIGH_BIT_GRAY_MODES = ("I", "I;16", "I;16B", "I;16L")
"""Pillow's modes for gray of more than 8 bits."""


def detect_format(data: bytes) -> ImageFormat | None:
    """Return the raster format of a file by its first bytes; None if it is neither PNG nor JPEG."""
    return next((name for signature, name in SIGNATURES.items() if data.startswith(signature)), None)


def raster_effort(data: bytes, format_name: ImageFormat) -> int:
    """Return the effort of decoding a raster file, PNG or JPEG, in pixels to process; 0 if there is no header.

    Each scan of a JPEG processes all pixels.
    """
    if format_name == "PNG":
        png_header = png_chunks.read_header(data)
        if png_header is None:
            return 0
        return UNKNOWN_EFFORT if _is_high_bit_color(png_header) else png_header.width * png_header.height
    header = jpeg_segments.read_header(data)
    if header is None:
        return 0
    return header.width * header.height * header.scans if _is_for_pillow(header) else UNKNOWN_EFFORT


def decode_raster(data: bytes, format_name: ImageFormat, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Decode a PNG or JPEG of any bit depth, palette, alpha or orientation to a `Radiograph`.

    Gray of more than 8 bits is reduced by its significant bits (a 12-bit image stored in 16 bits loses 4), color to its
    luminance, transparency to black, and a radiograph with dark bone is inverted. Pixels count as square: a resolution
    that differs between rows and columns is usually an export error, and viewers ignore it. Damage in the middle of
    JPEG data may go unnoticed, because libjpeg only warns about it and Pillow does not pass the warning on.

    Raises:
        TooManyPixelsError: the header announces more than `max_pixels`; nothing was decoded.
        UnreadableImageError: the file is truncated or corrupt, or is a JPEG with more than `MAX_SCANS` scans.
        UnsupportedFormatError: the process of a JPEG is not supported.
        NoContentError: see `Radiograph.from_pixels`.
    """
    try:
        decode = _decode_png if format_name == "PNG" else _decode_jpeg
        pixels_HW, color_share = decode(data, max_pixels)
    except (InputError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(too_many_pixels_message("too large", max_pixels)) from error
    except Exception as error:  # decoders raise almost any type on damaged data
        raise UnreadableImageError(
            f"The {format_name} is truncated or corrupt; export it again and check that the whole file is sent."
        ) from error
    return Radiograph.from_pixels(pixels_HW, color_share)


def _decode_png(data: bytes, max_pixels: int) -> tuple[PixelArray, float]:
    """Decode the gray levels that a viewer shows, and the share of colored pixels."""
    header = png_chunks.read_header(data)
    if header is None:
        raise ValueError("no header")
    _require_pixels(header.width, header.height, max_pixels)
    stripped = png_chunks.strip_chunks(data)
    with Image.open(io.BytesIO(stripped.data), formats=("PNG",)) as image:
        _require_pixels(image.width, image.height, max_pixels)  # a second header may announce more
        orientation = _read_orientation(image) or stripped.orientation
        if not _is_high_bit_color(header):
            image.load()
            return _to_upright(_to_gray(image), orientation), _measure_image_color(image)
    gray_HW, color_share = decode_high_bit_png(stripped.data)
    return _to_upright(gray_HW, orientation), color_share


def _decode_jpeg(data: bytes, max_pixels: int) -> tuple[PixelArray, float]:
    """Decode the gray levels that a viewer shows, and the share of colored pixels.

    Raises:
        UnsupportedFormatError: the process is not supported.
    """
    header = jpeg_segments.read_header(data)
    if header is None:
        raise ValueError("no frame")
    _require_pixels(header.width, header.height, max_pixels)
    if header.scans > MAX_SCANS:
        raise UnreadableImageError(f"The JPEG has more than {MAX_SCANS} scans; save it as an ordinary JPEG.")
    if _is_for_pillow(header):
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            _require_pixels(image.width, image.height, max_pixels)  # a second header may announce more
            image.load()
            return _to_upright(_to_gray(image), _read_orientation(image)), _measure_image_color(image)
    if header.process not in IMAGECODECS_PROCESSES:
        raise UnsupportedFormatError(
            f"The JPEG is encoded by the {header.process} process with {header.precision} bits, which is not "
            "supported; save it as an ordinary (baseline) JPEG or as PNG."
        )
    if not header.is_complete:  # libjpeg silently fills the missing part with gray
        raise ValueError("truncated")
    gray_HW, color_share = decode_high_bit_jpeg(data, is_ls=header.process == JPEG_LS)
    return _to_upright(gray_HW, _parse_orientation(header.exif)), color_share


def _is_for_pillow(header: JpegHeader) -> bool:
    return header.precision == 8 and header.process in PILLOW_PROCESSES


def _is_high_bit_color(header: PngHeader) -> bool:
    return header.bit_depth == HIGH_BIT_DEPTH and header.color_type != GRAY


def _require_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooManyPixelsError(too_many_pixels_message(f"{width}x{height} pixels", max_pixels))


def _read_orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation of an image; None if it is missing or unreadable."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF is common in intact images, and Pillow raises many types for it
        return None


def _parse_orientation(profile: bytes | None) -> int | None:
    """Return the orientation in an EXIF profile; None if it is missing or unreadable."""
    exif = Image.Exif()
    try:
        exif.load(profile or b"")
        return exif.get(ExifTags.Base.Orientation)
    except Exception:  # as above
        return None


def _to_upright(gray_HW: PixelArray, orientation: int | None) -> PixelArray:
    turn = ORIENTATION_TRANSFORMS.get(orientation or 1)
    return gray_HW if turn is None else np.asarray(Image.fromarray(gray_HW).transpose(turn))


def _to_gray(image: Image.Image) -> PixelArray:
    if image.mode in HIGH_BIT_GRAY_MODES:
        deep_HW = np.asarray(image).clip(0, 0xFFFF).astype(np.uint16)
        if (transparent := image.info.get("transparency")) is not None:
            deep_HW[deep_HW == transparent] = 0
        return significant_levels(deep_HW)(deep_HW)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    return np.asarray(image.convert(LUMINANCE)).copy()


def _measure_image_color(image: Image.Image) -> float:
    """Return the share of colored pixels, measured on a thumbnail."""
    if image.mode in (LUMINANCE, "LA", "1", *HIGH_BIT_GRAY_MODES):
        return 0.0
    thumbnail = image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.NEAREST).convert("RGB")
    return measure_color_share(np.asarray(thumbnail))
