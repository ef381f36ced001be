"""Decodes the compressed pixels of a DICOM file, all by imagecodecs: JPEG, JPEG-LS, JPEG 2000, HTJ2K and RLE.

pydicom's decoders are not used: which of them runs depends on what else is installed. The decoder is chosen by what the
codestream is, and its header is read first, because a decoder makes room for whatever that announces.
"""

import struct
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from xray.errors import UnreadableImageError
from xray.images.dicom.grayscale import StoredBits
from xray.images.raster import jpeg_segments
from xray.images.raster.jpeg_segments import JPEG_LS

JPEG_SYNTAXES = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)
JPEG_2000_SYNTAXES = (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K)
SYNTAXES = (*JPEG_SYNTAXES, *JPEG_2000_SYNTAXES, RLELossless)

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
"""Start of a JPEG or JPEG-LS image, and end of a JPEG 2000 codestream, in whose data it does not occur."""
SOC_SIZ = b"\xff\x4f\xff\x51"
"""Start of a JPEG 2000 codestream, and of its size (ISO/IEC 15444-1, A.4.1 and A.5.1)."""
SIZ = struct.Struct(">4x4I16xHB")
"""Behind it: length and capabilities; width and height of the grid, left and top on it; components, their bits."""
SOT = 0x90
TILE_PART = struct.Struct(">4xI")
"""Behind its marker: length of the segment and number of the tile; length of the tile-part, from the marker."""
JP2 = b"\x00\x00\x00\x0cjP  "
"""A codestream in a file of its own, which DICOM does not allow and some writers send."""
RLE_HEADER = struct.Struct("<16L")
"""Number of segments, and where they begin (PS3.5, annex G)."""

Words = npt.NDArray[Any]


@dataclass(frozen=True)
class Announced:
    """What a codestream says of itself.

    Attributes:
        bits: of a sample.
        signed: only JPEG 2000 can be.
        whole: whether the end of the image is there.
    """

    name: str
    shape: tuple[int, int]
    components: int
    bits: int
    signed: bool
    whole: bool


def decode_frame(
    pieces: tuple[bytes, ...], syntax: UID, shape: tuple[int, int], allocated: int, bits: StoredBits
) -> Words:
    """The words of one gray frame of `shape`, (H, W), as a native file of so many allocated bits would hold them.

    A lossy codec may overshoot the largest stored value; such samples are clipped to it. Bits above the stored ones
    of a lossless codec stay for `StoredBits` to leave away. Damage in the middle of JPEG data may pass: libjpeg only
    warns of it, and imagecodecs does not hand its warnings on.

    Raises:
        UnreadableImageError: cut short, damaged, or not what the tags announce.
    """
    stream = b"".join(pieces)
    if syntax == RLELossless:
        return _decode_rle(stream, shape, allocated)
    stream, announced = _jpeg_2000(stream) if syntax in JPEG_2000_SYNTAXES else _jpeg(stream)
    _require_announced(announced, shape, allocated)
    decode = {"JPEG": imagecodecs.jpeg8_decode, JPEG_LS: imagecodecs.jpegls_decode}
    try:
        samples = decode.get(announced.name, imagecodecs.jpeg2k_decode)(stream)
    except MemoryError:
        raise
    except Exception as error:  # each codec has an error of its own
        raise UnreadableImageError(f"The {announced.name} image within is corrupt; export the file again.") from error
    if samples.shape != shape:
        raise UnreadableImageError(f"The {announced.name} image within is not of one gray frame; export it again.")
    return _as_words(samples.astype(np.int32), announced, bits, lossy=syntax in LOSSY)


def _as_words(samples_HW: npt.NDArray[np.int32], announced: Announced, bits: StoredBits, lossy: bool) -> Words:
    """Samples as the tags want them: the sign is the tags', and of the precision that the codestream has."""
    stored, signed = bits.high_bit + 1, bits.lowest < 0
    if announced.signed and not signed:
        samples_HW &= (1 << announced.bits) - 1
    if signed and not announced.signed and announced.bits < stored:
        sign = 1 << (announced.bits - 1)
        samples_HW = (samples_HW ^ sign) - sign
    if lossy and announced.signed == signed:
        lowest = -(1 << (stored - 1)) if signed else 0
        samples_HW = samples_HW.clip(lowest, lowest + (1 << stored) - 1)
    return samples_HW


def _require_announced(announced: Announced, shape: tuple[int, int], allocated: int) -> None:
    name = announced.name
    if announced.components != 1:
        raise UnreadableImageError(
            f"The {name} image within has {announced.components} components where (0028,0002) Samples per Pixel is 1; "
            "export the file again."
        )
    if announced.shape != shape:
        raise UnreadableImageError(
            f"(0028,0010) Rows and (0028,0011) Columns are not those of the {name} image within; export the file again."
        )
    if announced.bits > allocated:
        raise UnreadableImageError(
            f"The {name} image within has {announced.bits} bits where (0028,0100) Bits Allocated is {allocated}; "
            "export the file again."
        )
    if not announced.whole:
        raise UnreadableImageError(
            f"The {name} image within is truncated: its end is missing; export it again and check that the whole file "
            "is sent."
        )


def _jpeg(stream: bytes) -> tuple[bytes, Announced]:
    header = jpeg_segments.read_header(stream) if stream.startswith(SOI) else None
    if header is None or not header.scans:
        raise UnreadableImageError(
            "(7FE0,0010) Pixel Data holds no JPEG image, or only its beginning; export it again."
        )
    name, shape = JPEG_LS if header.process == JPEG_LS else "JPEG", (header.height, header.width)
    return stream, Announced(name, shape, header.components, header.precision, False, header.is_whole)


def _jpeg_2000(stream: bytes) -> tuple[bytes, Announced]:
    if stream.startswith(JP2):
        stream = stream[_codestream_box(stream) :]
    if not stream.startswith(SOC_SIZ) or len(stream) < len(SOC_SIZ) + SIZ.size:
        raise UnreadableImageError(
            "(7FE0,0010) Pixel Data holds no JPEG 2000 image, or only its beginning; export it again."
        )
    width, height, left, top, components, depth = SIZ.unpack_from(stream, len(SOC_SIZ))
    signed, bits = bool(depth & 0x80), (depth & 0x7F) + 1
    shape = height - top, width - left
    return stream, Announced("JPEG 2000", shape, components, bits, signed, _has_all_tile_parts(stream))


def _codestream_box(stream: bytes) -> int:
    """Where the codestream of a JP2 file begins; its end where there is none."""
    place = 0
    while len(stream) >= place + 16:
        length, kind, longer = struct.unpack_from(">L4sQ", stream, place)
        if kind == b"jp2c":
            return place + (16 if length == 1 else 8)
        place += longer if length == 1 else max(length, 8)
    return len(stream)


def _has_all_tile_parts(stream: bytes) -> bool:
    """Whether the last tile-part ends within the bytes; some writers leave away the marker behind it."""
    place = 2
    while len(stream) >= place + 4:
        if stream[place : place + 2] == EOI:
            return True
        marker, length = stream[place + 1], int.from_bytes(stream[place + 2 : place + 4])
        if stream[place] != 0xFF or (marker == SOT and len(stream) < place + 2 + TILE_PART.size):
            return False
        if marker == SOT:
            length = TILE_PART.unpack_from(stream, place + 2)[0] - 2
            if length == -2:  # until the end
                return EOI in stream[place:]
        place += 2 + max(length, 2)
    return place == len(stream) or stream[place : place + 2] == EOI


def _decode_rle(stream: bytes, shape: tuple[int, int], allocated: int) -> Words:
    count = RLE_HEADER.unpack_from(stream)[0] if len(stream) >= RLE_HEADER.size else 0
    if count != allocated // 8:
        raise UnreadableImageError(
            f"The RLE image within has {count} segments where (0028,0100) Bits Allocated is {allocated}; export the "
            "file again."
        )
    try:
        words = imagecodecs.dicomrle_decode(stream, f"<u{allocated // 8}")
        flat = np.frombuffer(words, f"<u{allocated // 8}")
    except MemoryError:
        raise
    except Exception as error:
        raise UnreadableImageError("The RLE image within is corrupt; export the file again.") from error
    if flat.size < shape[0] * shape[1]:
        raise UnreadableImageError("The RLE image within is truncated; export the file again.")
    return flat[: shape[0] * shape[1]].reshape(shape)
