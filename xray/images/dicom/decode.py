"""Decodes a DICOM file into a `Radiograph`: CR and DX, one grayscale frame, in every common transfer syntax.

The tags are checked before the pixels are decoded. The decoders are native libraries, so a service calls `decode_dicom`
in a child process with limited memory and time (`xray.images.decoding.decoder_pool`).
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, config
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from xray.errors import InputError, NoContentError, UnreadableImageError, UnsupportedFormatError
from xray.images.dicom import codecs
from xray.images.dicom.data_set_layout import EncodedPixels
from xray.images.dicom.file import (
    DAMAGED_MESSAGE,
    read_file,
    read_uids,
    require_tags_in_order,
    unsupported_syntax_message,
)
from xray.images.dicom.grayscale import StoredBits, to_gray
from xray.images.dicom.shutter import read_shutter
from xray.images.dicom.tags import (
    Identity,
    read_facts,
    read_identity,
    read_pixel_aspect,
    read_shape,
    read_stored_bits,
    require_radiograph,
)
from xray.images.radiograph import MAX_PIXELS, Radiograph

MAX_COMPRESSION_RATIO = 200
"""Maximum ratio of pixel bytes to compressed bytes. An image above it shows nothing; radiographs reach about 20."""
NATIVE_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)

Words = npt.NDArray[Any]


def decode_dicom(data: bytes, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Decode a DICOM file to the pixels that a viewer shows. Only the tags decide on polarity and visible part.

    Raises:
        OutOfScopeError: the tags do not describe one grayscale radiograph of a limb that is ready to be shown.
        TooManyPixelsError: the tags announce more than `max_pixels`, or a deflated file inflates to more.
        UnsupportedFormatError: the transfer syntax is not supported.
        UnreadableImageError: the file is truncated or corrupt, or its tags contradict each other or the pixels.
        NoContentError: the image is constant or tiny, or has too few compressed bytes to show anything.
    """
    with _contain_pydicom():
        header, pixels = read_file(data, max_pixels)
        return _decode_pixels(header, pixels, max_pixels)


def identify(data: bytes) -> Identity:
    """Read which object a DICOM file contains, before `decode_dicom` decodes it.

    The tags after the UIDs are only checked for radiographs. A file may be truncated after the UIDs.

    Raises:
        UnsupportedFormatError: the transfer syntax is not supported.
        UnreadableImageError: the file is damaged, a UID is missing, or a radiograph has repeated tags.
    """
    with _contain_pydicom():
        identity = read_identity(read_uids(data))
        if identity.is_radiograph:
            require_tags_in_order(data)
        return identity


def read_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Dataset:
    """Read all tags of a DICOM file as `decode_dicom` does, but without decoding its pixels.

    Raises:
        InputError: tags are damaged; see `decode_dicom`.
    """
    with _contain_pydicom():
        return read_file(data, max_pixels)[0]


@contextmanager
def _contain_pydicom() -> Iterator[None]:
    """Suppress pydicom's warnings, which repeat the values of tags; re-raise its errors as UnreadableImageError."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        try:
            yield
        except (InputError, MemoryError):
            raise
        except Exception as error:  # pydicom raises almost any type on damaged data
            raise UnreadableImageError(DAMAGED_MESSAGE) from error


def _decode_pixels(header: Dataset, pixels: EncodedPixels | None, max_pixels: int) -> Radiograph:
    require_radiograph(header)
    shape = read_shape(header, max_pixels)
    bits = read_stored_bits(header)
    pixel_aspect = read_pixel_aspect(header)
    words_HW = _decode_words(header, _require_pixels(pixels), shape, bits)
    shutter = read_shutter(header, shape, pixel_aspect)
    gray_HW = to_gray(words_HW, bits, header, None if shutter is None else shutter.open_HW)
    if shutter is not None:
        gray_HW[~shutter.open_HW] = 0
    return Radiograph.from_pixels(
        gray_HW,
        dicom=read_facts(header),
        bone_is_dark=False,  # already inverted as the tags say
        shutter=None if shutter is None else shutter.content,
        pixel_aspect=pixel_aspect,
    )


def _require_pixels(pixels: EncodedPixels | None) -> EncodedPixels:
    if pixels is None or not any(pixels.pieces):
        raise UnreadableImageError("(7FE0,0010) Pixel Data is missing; send the image, not only its header.")
    return pixels


def _decode_words(header: Dataset, pixels: EncodedPixels, shape: tuple[int, int], bits: StoredBits) -> Words:
    """Decode the words of the image, (H, W), with all bits up to the highest stored bit.

    Raises:
        UnsupportedFormatError: the transfer syntax is not supported.
        UnreadableImageError: the pixels do not match the tags.
        NoContentError: the compressed bytes are too few to show anything.
    """
    syntax = header.file_meta.TransferSyntaxUID
    allocated = int(header.BitsAllocated)
    expected = shape[0] * shape[1] * allocated // 8
    if syntax not in NATIVE_SYNTAXES and syntax not in codecs.SYNTAXES:
        raise UnsupportedFormatError(unsupported_syntax_message(syntax))
    if pixels.encapsulated != (syntax in codecs.SYNTAXES):
        raise UnreadableImageError(
            f"(7FE0,0010) Pixel Data {'is' if pixels.encapsulated else 'is not'} in fragments, unlike (0002,0010) "
            "Transfer Syntax UID says; export the file again."
        )
    if not pixels.encapsulated:
        return _read_native(pixels, shape, allocated, little=syntax != ExplicitVRBigEndian)
    length = sum(map(len, pixels.pieces))
    if length * MAX_COMPRESSION_RATIO < expected:
        raise NoContentError(
            f"(7FE0,0010) Pixel Data holds {length:,} bytes for {expected:,} of pixels; send a radiograph that shows "
            "anatomy."
        )
    return codecs.decode_frame(pixels.pieces, syntax, shape, allocated, bits)


def _read_native(pixels: EncodedPixels, shape: tuple[int, int], allocated: int, little: bool) -> Words:
    value = pixels.pieces[0]
    expected = shape[0] * shape[1] * allocated // 8
    excess = value[expected:]
    # Some writers pad the pixels. Extra bytes that could be more rows or columns are not padding.
    is_padding = len(excess) < min(shape) * allocated // 8 or excess == excess[:1] * len(excess)
    if len(value) < expected or not is_padding:
        raise UnreadableImageError(
            f"(7FE0,0010) Pixel Data holds {len(value):,} bytes where rows, columns and bits announce {expected:,}; "
            "export the file again."
        )
    if allocated == 8 and not little and pixels.vr == "OW":
        value = np.frombuffer(value[: len(value) // 2 * 2], ">u2").astype("<u2").tobytes()
    return np.frombuffer(value, f"{'<' if little else '>'}u{allocated // 8}", shape[0] * shape[1]).reshape(shape)
