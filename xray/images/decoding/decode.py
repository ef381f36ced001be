"""Bytes of any file that we read in, one `Radiograph` out."""

from pathlib import Path

from xray.errors import UnsupportedFormatError
from xray.images.dicom.decode import decode_dicom
from xray.images.dicom.file import is_dicom
from xray.images.radiograph import MAX_PIXELS, Radiograph
from xray.images.raster.decode import UNKNOWN_EFFORT, decode_image, format_of, image_effort


def read_radiograph(path: Path, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Decode a file; see `decode_radiograph`. OSError passes through when the file cannot be opened."""
    return decode_radiograph(path.read_bytes(), max_pixels)


def decode_radiograph(data: bytes, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Decode a PNG, JPEG or DICOM file; see `decode_image` and `decode_dicom`.

    Raises:
        UnsupportedFormatError: it is none of these, DICOM in a transfer syntax that is not read, or JPEG of such a
            process.
        TooManyPixelsError: the header announces more than `max_pixels`; nothing was decoded.
        UnreadableImageError: truncated or corrupt.
        NoContentError: constant, tiny, or a ribbon.
        OutOfScopeError: the tags of a DICOM file name no single radiograph of a limb.
    """
    if (format_name := format_of(data)) is not None:
        return decode_image(data, format_name, max_pixels)
    if is_dicom(data):
        return decode_dicom(data, max_pixels)
    raise UnsupportedFormatError(
        "The bytes are neither PNG nor JPEG nor DICOM (with its preamble); send the radiograph as one of these."
    )


def decoding_effort(data: bytes) -> int:
    """Pixels that decoding has to go over, in all scans of a progressive JPEG; 0 where the header tells of none.

    Only headers are read, so that a caller can put away what would take long. A DICOM file's header alone may inflate
    to anything, and the rarer kinds of PNG and JPEG have little-used decoders: their effort counts as boundless.
    """
    if (format_name := format_of(data)) is not None:
        return image_effort(data, format_name)
    return UNKNOWN_EFFORT if is_dicom(data) else 0
