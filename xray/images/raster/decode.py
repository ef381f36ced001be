"""Decode a PNG or JPEG file to a `Radiograph`: 8-bit gray, upright after the EXIF orientation, bone bright.

Pillow decodes what has 8 bits, and gray of 16. What it cannot decode or would cut to 8 bits goes to `deep_image`: PNG
with 16 bits and several channels, JPEG with 12 bits, lossless JPEG and JPEG-LS.
"""

import io
import sys
from typing import Literal

import numpy as np
from PIL import ExifTags, Image

from xray.errors import InputError, TooManyPixelsError, UnreadableImageError, UnsupportedFormatError
from xray.images.levels import significant_levels
from xray.images.radiograph import MAX_PIXELS, PixelArray, Radiograph, radiograph_of, too_many
from xray.images.raster import jpeg_segments, png_chunks
from xray.images.raster.deep_pixels import SKETCH_SIDE, decode_deep_jpeg, decode_deep_png, share_with_colour
from xray.images.raster.jpeg_segments import JPEG_LS, JpegHeader
from xray.images.raster.png_chunks import GRAY, PngHeader

MAX_SCANS = 100
"""Of a progressive JPEG, each of which costs a pass over all pixels; encoders write about ten."""
UNKNOWN_EFFORT = sys.maxsize
"""Of a file that may take any time and memory to decode."""
DEEP = 16
"""Bits of a channel of a PNG that Pillow would cut to 8 where there is more than one."""
PILLOW_PROCESSES = ("baseline", "extended sequential", "progressive", "arithmetic sequential", "arithmetic progressive")
"""Of JPEG with 8 bits."""
DEEP_PROCESSES = ("extended sequential", "progressive", "lossless", JPEG_LS)
"""Of JPEG that imagecodecs decodes."""

ImageFormat = Literal["PNG", "JPEG"]
PNG_HEADER_BYTES = 33
SIGNATURES: dict[bytes, ImageFormat] = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
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
    if format_name == "PNG":
        picture = png_chunks.read_header(data)
        if picture is None:
            return 0
        return UNKNOWN_EFFORT if _is_deep_colour(picture) else picture.width * picture.height
    header = jpeg_segments.read_header(data)
    if header is None:
        return 0
    return header.width * header.height * header.scans if _is_for_pillow(header) else UNKNOWN_EFFORT


def decode_image(data: bytes, format_name: ImageFormat, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Decode PNG or JPEG bytes of any bit depth, palette, alpha or orientation.

    Deep gray is reduced by its significant bits (a 12-bit image stored in 16 bits loses 4), colour to its luminance,
    transparency to black, and a radiograph with dark bone is inverted. Pixels count as square: a resolution that
    differs between rows and columns is more often a slip of an export than the detector's, and viewers ignore it.
    Damage in the middle of JPEG data may pass: libjpeg only warns of it, and Pillow does not hand its warnings on.

    Raises:
        TooManyPixelsError: the header announces more than `max_pixels`; nothing was decoded.
        UnreadableImageError: truncated or corrupt, or a JPEG of more than `MAX_SCANS` scans.
        UnsupportedFormatError: a JPEG of a process that is not read.
        NoContentError: see `radiograph_of`.
    """
    try:
        decode = _decode_png if format_name == "PNG" else _decode_jpeg
        pixels_HW, coloured = decode(data, max_pixels)
    except (InputError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(too_many("too large", max_pixels)) from error
    except Exception as error:  # decoders report damage as almost any type, depending on where in the file it lies
        raise UnreadableImageError(
            f"The {format_name} is truncated or corrupt; export it again and check that the whole file is sent."
        ) from error
    return radiograph_of(pixels_HW, coloured)


def _decode_png(data: bytes, max_pixels: int) -> tuple[PixelArray, float]:
    """The gray levels as a viewer shows them, and the share of coloured pixels."""
    header = png_chunks.read_header(data)
    if header is None:
        raise ValueError("no header")
    _require_pixels(header.width, header.height, max_pixels)
    picture = png_chunks.read_picture(data)
    with Image.open(io.BytesIO(picture.data), formats=("PNG",)) as image:
        _require_pixels(image.width, image.height, max_pixels)  # a second header may announce more
        orientation = _orientation(image) or picture.orientation
        if not _is_deep_colour(header):
            image.load()
            return _upright(_to_gray(image), orientation), _coloured(image)
    gray_HW, coloured = decode_deep_png(picture.data)
    return _upright(gray_HW, orientation), coloured


def _decode_jpeg(data: bytes, max_pixels: int) -> tuple[PixelArray, float]:
    """As `_decode_png`.

    Raises:
        UnsupportedFormatError: a process that is not read.
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
            return _upright(_to_gray(image), _orientation(image)), _coloured(image)
    if header.process not in DEEP_PROCESSES:
        raise UnsupportedFormatError(
            f"The JPEG is encoded by the {header.process} process with {header.precision} bits, which is not read "
            "here; save it as an ordinary (baseline) JPEG or as PNG."
        )
    if not header.is_whole:  # libjpeg fills up with gray what is missing, and says nothing
        raise ValueError("truncated")
    gray_HW, coloured = decode_deep_jpeg(data, is_ls=header.process == JPEG_LS)
    return _upright(gray_HW, _exif_orientation(header.exif)), coloured


def _is_for_pillow(header: JpegHeader) -> bool:
    return header.precision == 8 and header.process in PILLOW_PROCESSES


def _is_deep_colour(header: PngHeader) -> bool:
    return header.bit_depth == DEEP and header.colour_type != GRAY


def _require_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooManyPixelsError(too_many(f"{width}x{height} pixels", max_pixels))


def _orientation(image: Image.Image) -> int | None:
    """What EXIF says; None where it says nothing that can be read."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # odd EXIF is common in sound images, and Pillow raises many types on it
        return None


def _exif_orientation(profile: bytes | None) -> int | None:
    exif = Image.Exif()
    try:
        exif.load(profile or b"")
        return exif.get(ExifTags.Base.Orientation)
    except Exception:  # as above
        return None


def _upright(gray_HW: PixelArray, orientation: int | None) -> PixelArray:
    turn = UPRIGHT.get(orientation or 1)
    return gray_HW if turn is None else np.asarray(Image.fromarray(gray_HW).transpose(turn))


def _to_gray(image: Image.Image) -> PixelArray:
    if image.mode in DEEP_GRAY_MODES:
        deep_HW = np.asarray(image).clip(0, 0xFFFF).astype(np.uint16)
        if (transparent := image.info.get("transparency")) is not None:
            deep_HW[deep_HW == transparent] = 0
        return significant_levels(deep_HW)(deep_HW)
    if image.has_transparency_data:
        upright = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", upright.size, "black"), upright)
    return np.asarray(image.convert(LUMINANCE)).copy()


def _coloured(image: Image.Image) -> float:
    """Share of pixels whose channels differ by more than `CHROMA`, on a small copy."""
    if image.mode in (LUMINANCE, "LA", "1", *DEEP_GRAY_MODES):
        return 0.0
    sketch = image.resize((SKETCH_SIDE, SKETCH_SIDE), Image.Resampling.NEAREST).convert("RGB")
    return share_with_colour(np.asarray(sketch))
