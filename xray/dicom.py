"""DICOM bytes in, one `Radiograph` out: CR and DX, one gray frame, in every transfer syntax with a decoder we may ship.

Nothing is decoded before the tags have said that it is worth it. Decoders are other people's C: a service calls
`decode_dicom` in a process of its own (`xray.apart`), with a limit on memory and time.
"""

import io
import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, config, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
)

from xray.dicom_tags import Identity, bits_of, facts_of, identity_of, named, require_radiograph, shape_of
from xray.errors import InputError, NoContentError, TooManyPixelsError, UnreadableImageError, UnsupportedFormatError
from xray.grayscale import StoredBits, to_gray
from xray.jpeg2000 import announced_shape
from xray.radiograph import MAX_PIXELS, Radiograph, radiograph_of, too_many

SIGNATURE = b"DICM"
PREAMBLE = 128
"""Bytes before it."""
META_GROUP = 0x0002
LAST_UID = 0x0020000E
"""Series Instance UID: the last tag of those that identify an object."""
MAX_HEADER = 16 << 20
"""Bytes of tags beside the pixels that a deflated file may inflate to."""
MAX_COMPRESSION = 200
"""Pixel bytes by compressed bytes, beyond which there is nothing in an image; radiographs reach about twenty."""
DAMAGED = "The DICOM file is truncated or corrupt; export it again and check that the whole file is sent."

Words = npt.NDArray[Any]


def is_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM file does (PS3.10)."""
    return data[PREAMBLE : PREAMBLE + len(SIGNATURE)] == SIGNATURE


def decode_dicom(data: bytes, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Decode a file as a viewer would show it, and turn it so that bone is bright.

    Raises:
        OutOfScopeError: the tags name no single gray radiograph of a limb that is ready to be shown.
        TooManyPixelsError: the tags announce more than `max_pixels`, or a deflated file inflates to more.
        UnsupportedFormatError: a transfer syntax that is not read.
        UnreadableImageError: truncated or corrupt, or tags that contradict each other or the pixels.
        NoContentError: constant or tiny, or compressed so far that it is.
    """
    with _quietly():
        return _decoded(_parsed(data, max_pixels), max_pixels)


def identify(data: bytes) -> Identity:
    """Which object a file holds, be it a radiograph or not; tags beyond the UIDs are not looked at.

    Raises:
        UnreadableImageError: damaged, or a UID is missing.
    """
    with _quietly():
        meta, stream = _meta(data)
        syntax = meta.TransferSyntaxUID
        if syntax == DeflatedExplicitVRLittleEndian:
            stream = io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(), MAX_HEADER))
        return identity_of(
            read_dataset(
                stream, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=lambda tag, *_: tag > LAST_UID
            )
        )


def header_of(data: bytes, max_pixels: int = MAX_PIXELS) -> Dataset:
    """All tags of a file that has been decoded before, without its pixels; raises what `decode_dicom` raises."""
    with _quietly():
        header = _parsed(data, max_pixels)
        del header.PixelData
        return header


@contextmanager
def _quietly() -> Iterator[None]:
    """Raise but our own errors, and say nothing: warnings of pydicom repeat the values of tags."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        try:
            yield
        except (InputError, MemoryError):
            raise
        except Exception as error:  # pydicom and its decoders report damage as almost any type
            raise UnreadableImageError(DAMAGED) from error


def _decoded(header: Dataset, max_pixels: int) -> Radiograph:
    require_radiograph(header)
    shape, bits = shape_of(header, max_pixels), bits_of(header)
    _require_length(header, shape[0] * shape[1] * header.BitsAllocated // 8)
    _require_own_size(header, shape)
    words_HW = _words(header, bits).reshape(shape)
    return radiograph_of(to_gray(words_HW, bits, header), dicom=facts_of(header))


def _parsed(data: bytes, max_pixels: int) -> Dataset:
    """All tags, the pixels still encoded; a deflated file is inflated within limits, which pydicom has none for."""
    meta, stream = _meta(data)
    if meta.TransferSyntaxUID != DeflatedExplicitVRLittleEndian:
        return dcmread(io.BytesIO(data))
    inflater, limit = zlib.decompressobj(-zlib.MAX_WBITS), MAX_HEADER + 2 * max_pixels
    inflated = inflater.decompress(stream.read(), limit)
    if not inflater.eof:
        if len(inflated) < limit:
            raise UnreadableImageError(DAMAGED)
        raise TooManyPixelsError(too_many("larger when it is inflated than any of the allowed size", max_pixels))
    header = read_dataset(io.BytesIO(inflated), False, True)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta = meta
    return header


def _meta(data: bytes) -> tuple[FileMetaDataset, io.BytesIO]:
    """How the tags are written, and the stream where they begin."""
    stream = io.BytesIO(data)
    stream.seek(PREAMBLE + len(SIGNATURE))
    meta = FileMetaDataset(read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != META_GROUP))
    if "TransferSyntaxUID" not in meta:
        raise UnreadableImageError(f"{named(meta, 'TransferSyntaxUID')}; export the file again.")
    return meta, stream


def _require_length(header: Dataset, expected: int) -> None:
    """The pixels' bytes, against those that the tags announce.

    Raises:
        UnreadableImageError: there are none, or not as many as announced.
        NoContentError: so few that they cannot hold a radiograph.
    """
    if not header.get("PixelData"):
        raise UnreadableImageError("(7FE0,0010) Pixel Data is missing; send the image and not only its header.")
    length = len(header.PixelData)
    if header.file_meta.TransferSyntaxUID.is_encapsulated:
        if length * MAX_COMPRESSION < expected:
            raise NoContentError(
                f"(7FE0,0010) Pixel Data holds {length:,} bytes for {expected:,} of pixels; send a radiograph that "
                "shows anatomy."
            )
    elif length not in (expected, expected + expected % 2):
        raise UnreadableImageError(
            f"(7FE0,0010) Pixel Data holds {length:,} bytes where rows, columns and bits announce {expected:,}; export "
            "the file again."
        )


def _require_own_size(header: Dataset, shape: tuple[int, int]) -> None:
    """Raises: UnreadableImageError: the image within is of another size than the tags say."""
    if header.file_meta.TransferSyntaxUID in JPEG2000TransferSyntaxes:
        within = announced_shape(header.PixelData)
        if within not in (None, shape):
            raise UnreadableImageError(
                "(0028,0010) Rows and (0028,0011) Columns are not those of the JPEG 2000 image within; export the file "
                "again."
            )


def _words(header: Dataset, bits: StoredBits) -> Words:
    """The image's words with all bits up to the highest stored one, in one row."""
    decoder = _decoder(header.file_meta.TransferSyntaxUID)
    # pydicom leaves away what is above Bits Stored, wherever High Bit says that these lie.
    header.BitsStored = bits.high_bit + 1
    words, _ = decoder.as_array(header, raw=True, index=0)
    return np.asarray(words).ravel()


def _decoder(syntax: Any) -> Decoder:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnsupportedFormatError(
            "(0002,0010) Transfer Syntax UID is none that is read here; send the file as Explicit VR Little Endian."
        ) from error
    if syntax == JPEGExtended12Bit and "imagecodecs" not in decoder.available_plugins:
        decoder.add_plugin("imagecodecs", ("xray.jpeg_extended", "decode_frame"))
    return decoder
