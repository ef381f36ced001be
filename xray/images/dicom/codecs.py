"""Decodes the compressed pixels of a DICOM file with imagecodecs: JPEG, JPEG-LS, JPEG 2000, HTJ2K and RLE.

pydicom's decoders are not used, because the choice among them depends on the installed packages. The codestream decides
which decoder is used. Its header is checked first, because a decoder allocates whatever size the header announces.
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
LOSSY_SYNTAXES = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K)
SYNTAXES = (*JPEG_SYNTAXES, *JPEG_2000_SYNTAXES, RLELossless)

SOI = b"\xff\xd8"
"""Marker at the start of a JPEG or JPEG-LS image."""
EOC = b"\xff\xd9"
"""Marker at the end of a JPEG 2000 codestream; it does not occur in the data."""
SOC_SIZ = b"\xff\x4f\xff\x51"
"""Markers at the start of a JPEG 2000 codestream and of its size (ISO/IEC 15444-1, A.4.1 and A.5.1)."""
SIZ = struct.Struct(">4x4I16xHB")
"""Fields after `SOC_SIZ`: width and height of the grid, left and top edge of the image, number of components, bits."""
SOT = 0x90
"""Second byte of the marker of a tile-part (ISO/IEC 15444-1, A.4.2)."""
TILE_PART = struct.Struct(">4xI")
"""Field after the marker of a tile-part: the length of the tile-part, counted from the marker."""
JP2 = b"\x00\x00\x00\x0cjP  "
"""Start of a JP2 file with a codestream. DICOM does not allow JP2 files, but some writers send them."""
RLE_HEADER = struct.Struct("<16L")
"""Number of segments and their positions (PS3.5, annex G)."""

Words = npt.NDArray[Any]


@dataclass(frozen=True)
class CodestreamHeader:
    """The header of a codestream, as which a DICOM file holds its compressed pixels.

    Attributes:
        name: name of the codec, for error messages.
        shape: (H, W).
        bits: bits per sample.
        signed: whether samples are signed, which only JPEG 2000 allows.
        is_complete: whether the end of the image is present.
    """

    name: str
    shape: tuple[int, int]
    components: int
    bits: int
    signed: bool
    is_complete: bool


def decode_frame(
    fragments: tuple[bytes, ...], syntax: UID, shape: tuple[int, int], allocated: int, bits: StoredBits
) -> Words:
    """Decompress a grayscale DICOM frame of `shape` (H, W) to the words of an uncompressed file with `allocated` bits.

    A lossy codec may overshoot the largest stored value; such samples are clipped to it. Bits above the stored bits
    of a lossless codec are kept; `StoredBits` removes them. Damage in the middle of JPEG data may go unnoticed, because
    libjpeg only warns about it and imagecodecs does not pass the warning on.

    Raises:
        UnreadableImageError: the image is truncated, damaged, or not as the tags describe it.
    """
    stream = b"".join(fragments)
    if syntax == RLELossless:
        return _decode_rle(stream, shape, allocated)
    stream, codestream = _read_jpeg_2000(stream) if syntax in JPEG_2000_SYNTAXES else _read_jpeg(stream)
    _require_match(codestream, shape, allocated)
    decode = {"JPEG": imagecodecs.jpeg8_decode, JPEG_LS: imagecodecs.jpegls_decode}
    try:
        samples = decode.get(codestream.name, imagecodecs.jpeg2k_decode)(stream)
    except MemoryError:
        raise
    except Exception as error:  # each codec raises its own type
        raise UnreadableImageError(f"The {codestream.name} image within is corrupt; export the file again.") from error
    if samples.shape != shape:
        raise UnreadableImageError(f"The {codestream.name} image in the file is not one gray frame; export it again.")
    return _to_words(samples.astype(np.int32), codestream, bits, lossy=syntax in LOSSY_SYNTAXES)


def _to_words(samples_HW: npt.NDArray[np.int32], codestream: CodestreamHeader, bits: StoredBits, lossy: bool) -> Words:
    """Convert samples to the signedness of the tags, with the precision of the codestream."""
    stored = bits.high_bit + 1
    signed = bits.lowest < 0
    if codestream.signed and not signed:
        samples_HW &= (1 << codestream.bits) - 1
    if signed and not codestream.signed and codestream.bits < stored:
        sign = 1 << (codestream.bits - 1)
        samples_HW = (samples_HW ^ sign) - sign
    if lossy and codestream.signed == signed:
        lowest = -(1 << (stored - 1)) if signed else 0
        samples_HW = samples_HW.clip(lowest, lowest + (1 << stored) - 1)
    return samples_HW


def _require_match(codestream: CodestreamHeader, shape: tuple[int, int], allocated: int) -> None:
    name = codestream.name
    if codestream.components != 1:
        raise UnreadableImageError(
            f"The {name} image within has {codestream.components} components where (0028,0002) Samples per Pixel is 1; "
            "export the file again."
        )
    if codestream.shape != shape:
        raise UnreadableImageError(
            f"(0028,0010) Rows and (0028,0011) Columns are not those of the {name} image within; export the file again."
        )
    if codestream.bits > allocated:
        raise UnreadableImageError(
            f"The {name} image within has {codestream.bits} bits where (0028,0100) Bits Allocated is {allocated}; "
            "export the file again."
        )
    if not codestream.is_complete:
        raise UnreadableImageError(
            f"The {name} image within is truncated: its end is missing; export it again and check that the whole file "
            "is sent."
        )


def _read_jpeg(stream: bytes) -> tuple[bytes, CodestreamHeader]:
    header = jpeg_segments.read_header(stream) if stream.startswith(SOI) else None
    if header is None or not header.scans:
        raise UnreadableImageError(
            "(7FE0,0010) Pixel Data holds no JPEG image, or only its beginning; export it again."
        )
    name = JPEG_LS if header.process == JPEG_LS else "JPEG"
    shape = (header.height, header.width)
    return stream, CodestreamHeader(name, shape, header.components, header.precision, False, header.is_complete)


def _read_jpeg_2000(stream: bytes) -> tuple[bytes, CodestreamHeader]:
    if stream.startswith(JP2):
        stream = stream[_codestream_start(stream) :]
    if not stream.startswith(SOC_SIZ) or len(stream) < len(SOC_SIZ) + SIZ.size:
        raise UnreadableImageError(
            "(7FE0,0010) Pixel Data holds no JPEG 2000 image, or only its beginning; export it again."
        )
    width, height, left, top, components, depth = SIZ.unpack_from(stream, len(SOC_SIZ))
    signed, bits = bool(depth & 0x80), (depth & 0x7F) + 1
    shape = height - top, width - left
    return stream, CodestreamHeader("JPEG 2000", shape, components, bits, signed, _has_all_tile_parts(stream))


def _codestream_start(stream: bytes) -> int:
    """Return the position of the codestream in a JP2 file, or the end of the file if there is none."""
    position = 0
    while len(stream) >= position + 16:
        length, kind, longer = struct.unpack_from(">L4sQ", stream, position)
        if kind == b"jp2c":
            return position + (16 if length == 1 else 8)
        position += longer if length == 1 else max(length, 8)
    return len(stream)


def _has_all_tile_parts(stream: bytes) -> bool:
    """Return whether the last tile-part is complete. Some writers omit the marker after it."""
    position = 2
    while len(stream) >= position + 4:
        if stream[position : position + 2] == EOC:
            return True
        marker = stream[position + 1]
        length = int.from_bytes(stream[position + 2 : position + 4])
        if stream[position] != 0xFF or (marker == SOT and len(stream) < position + 2 + TILE_PART.size):
            return False
        if marker == SOT:
            length = TILE_PART.unpack_from(stream, position + 2)[0] - 2
            if length == -2:  # length 0: the tile-part extends to the end of the codestream
                return EOC in stream[position:]
        position += 2 + max(length, 2)
    return position == len(stream) or stream[position : position + 2] == EOC


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
