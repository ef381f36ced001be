"""Decodes the bytes of a DICOM file into a `Radiograph`: CR and DX, one gray frame, in every common transfer syntax.

Nothing is decoded before the tags have said that it is worth it. Decoders are other people's C: a service calls
`decode_dicom` in a process of its own (`xray.images.decoding.decoder_pool`), with a limit on memory and time.
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
from xray.images.dicom.file import DAMAGED, read_file, read_uids, require_tags_in_order, unread
from xray.images.dicom.grayscale import StoredBits, to_gray
from xray.images.dicom.pixel_layout import Pixels
from xray.images.dicom.shutter import shutter_of
from xray.images.dicom.tags import (
    Identity,
    bits_of,
    facts_of,
    identity_of,
    pixel_aspect_of,
    require_radiograph,
    shape_of,
)
from xray.images.radiograph import MAX_PIXELS, Radiograph, radiograph_of

MAX_COMPRESSION = 200
"""Pixel bytes by compressed bytes, beyond which there is nothing in an image; radiographs reach about twenty."""
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)

Words = npt.NDArray[Any]


def decode_dicom(data: bytes, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Decode a file as a viewer shows it: its tags alone say whether bone is bright, and what of it is to be seen.

    Raises:
        OutOfScopeError: the tags name no single gray radiograph of a limb that is ready to be shown.
        TooManyPixelsError: the tags announce more than `max_pixels`, or a deflated file inflates to more.
        UnsupportedFormatError: a transfer syntax that is not read.
        UnreadableImageError: truncated or corrupt, or tags that contradict each other or the pixels.
        NoContentError: constant or tiny, or compressed so far that it is.
    """
    with _quietly():
        header, pixels = read_file(data, max_pixels)
        return _decoded(header, pixels, max_pixels)


def identify(data: bytes) -> Identity:
    """Which object a file holds, be it a radiograph or not; of others, tags beyond the UIDs are not looked at.

    A file that was cut short behind the UIDs is identified too.

    Raises:
        UnsupportedFormatError: a transfer syntax that is not read.
        UnreadableImageError: damaged, or a UID is missing, or a radiograph has a tag twice.
    """
    with _quietly():
        identity = identity_of(read_uids(data))
        if identity.is_radiograph:
            require_tags_in_order(data)
        return identity


def header_of(data: bytes, max_pixels: int = MAX_PIXELS) -> Dataset:
    """All tags of a file that has been decoded before, without its pixels; raises what `decode_dicom` raises."""
    with _quietly():
        return read_file(data, max_pixels)[0]


@contextmanager
def _quietly() -> Iterator[None]:
    """Suppress pydicom's warnings, which repeat the values of tags, and turn its errors into one of ours."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        try:
            yield
        except (InputError, MemoryError):
            raise
        except Exception as error:  # pydicom reports damage as almost any type
            raise UnreadableImageError(DAMAGED) from error


def _decoded(header: Dataset, pixels: Pixels | None, max_pixels: int) -> Radiograph:
    require_radiograph(header)
    shape, bits, pixel_aspect = shape_of(header, max_pixels), bits_of(header), pixel_aspect_of(header)
    words_HW = _words(header, _present(pixels), shape, bits)
    shutter = shutter_of(header, shape, pixel_aspect)
    gray_HW = to_gray(words_HW, bits, header, None if shutter is None else shutter.open_HW)
    if shutter is not None:
        gray_HW[~shutter.open_HW] = 0
    return radiograph_of(
        gray_HW,
        dicom=facts_of(header),
        negative=False,  # the tags have said whether bone is dark
        content=None if shutter is None else shutter.content,
        pixel_aspect=pixel_aspect,
    )


def _present(pixels: Pixels | None) -> Pixels:
    if pixels is None or not any(pixels.pieces):
        raise UnreadableImageError("(7FE0,0010) Pixel Data is missing; send the image and not only its header.")
    return pixels


def _words(header: Dataset, pixels: Pixels, shape: tuple[int, int], bits: StoredBits) -> Words:
    """(H, W) words with all bits up to the highest stored one.

    Raises:
        UnsupportedFormatError: a transfer syntax of no still image.
        UnreadableImageError: the pixels are not what the tags announce.
        NoContentError: so few bytes that they cannot hold a radiograph.
    """
    syntax, allocated = header.file_meta.TransferSyntaxUID, int(header.BitsAllocated)
    expected = shape[0] * shape[1] * allocated // 8
    if syntax not in NATIVE and syntax not in codecs.SYNTAXES:
        raise UnsupportedFormatError(unread(syntax))
    if pixels.encapsulated != (syntax in codecs.SYNTAXES):
        raise UnreadableImageError(
            f"(7FE0,0010) Pixel Data {'is' if pixels.encapsulated else 'is not'} in fragments, unlike (0002,0010) "
            "Transfer Syntax UID says; export the file again."
        )
    if not pixels.encapsulated:
        return _native(pixels, shape, allocated, little=syntax != ExplicitVRBigEndian)
    length = sum(map(len, pixels.pieces))
    if length * MAX_COMPRESSION < expected:
        raise NoContentError(
            f"(7FE0,0010) Pixel Data holds {length:,} bytes for {expected:,} of pixels; send a radiograph that shows "
            "anatomy."
        )
    return codecs.decode_frame(pixels.pieces, syntax, shape, allocated, bits)


def _native(pixels: Pixels, shape: tuple[int, int], allocated: int, little: bool) -> Words:
    value, expected = pixels.pieces[0], shape[0] * shape[1] * allocated // 8
    excess = value[expected:]
    # Some writers pad. What could be rows or columns that the tags do not announce is no padding.
    is_padding = len(excess) < min(shape) * allocated // 8 or excess == excess[:1] * len(excess)
    if len(value) < expected or not is_padding:
        raise UnreadableImageError(
            f"(7FE0,0010) Pixel Data holds {len(value):,} bytes where rows, columns and bits announce {expected:,}; "
            "export the file again."
        )
    if allocated == 8 and not little and pixels.vr == "OW":
        value = np.frombuffer(value[: len(value) // 2 * 2], ">u2").astype("<u2").tobytes()
    return np.frombuffer(value, f"{'<' if little else '>'}u{allocated // 8}", shape[0] * shape[1]).reshape(shape)
