"""Decodes a PNG, JPEG or DICOM file to a `Radiograph`."""

from pathlib import Path

from xray.errors import UnsupportedFormatError
from xray.images.dicom.decode import decode_dicom
from xray.images.dicom.file import is_dicom
from xray.images.radiograph import MAX_PIXELS, Radiograph
from xray.images.raster.decode import UNKNOWN_EFFORT, decode_raster, detect_format, raster_effort


def read_radiograph(path: Path, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Read a PNG, JPEG or DICOM file and decode it to a `Radiograph` in this process.

    Raises:
        OSError: the file cannot be read.
        InputError: the file is invalid; see `decode_radiograph`.
    """
    return decode_radiograph(path.read_bytes(), max_pixels)


def decode_radiograph(data: bytes, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Decode the bytes of any supported file, PNG, JPEG or DICOM, by `decode_raster` or `decode_dicom`.

    Raises:
        UnsupportedFormatError: another format, or a DICOM transfer syntax or JPEG process that is not supported.
        TooManyPixelsError: the header announces more than `max_pixels`; nothing was decoded.
        UnreadableImageError: the file is truncated or corrupt.
        NoContentError: the image is constant, tiny, or far longer than wide.
        OutOfScopeError: the tags of a DICOM file do not describe one radiograph of a limb.
    """
    if (format_name := detect_format(data)) is not None:
        return decode_raster(data, format_name, max_pixels)
    if is_dicom(data):
        return decode_dicom(data, max_pixels)
    raise UnsupportedFormatError(
        "The bytes are neither PNG nor JPEG nor DICOM (with its preamble); send the radiograph as one of these."
    )


def decoding_effort(data: bytes) -> int:
    """Return the effort of decoding a PNG, JPEG or DICOM file, in pixels to process; 0 if there is no header.

    Each scan of a progressive JPEG processes all pixels. Only headers are read, so that a caller can decide where to
    decode. The effort is `UNKNOWN_EFFORT` for DICOM, whose header may inflate to any size, and for rare kinds of PNG
    and JPEG, whose decoders are less tested.
    """
    if (format_name := detect_format(data)) is not None:
        return raster_effort(data, format_name)
    return UNKNOWN_EFFORT if is_dicom(data) else 0
