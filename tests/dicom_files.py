"""Writes DX files in every transfer syntax, and decodes them with dcmtk for comparison."""

import io
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import DataElement, Dataset, FileDataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from tests.waiting import HUNG_SECONDS
from xray.images.dicom.codecs import decode_frame
from xray.images.dicom.file import read_file
from xray.images.dicom.tags import read_shape, read_stored_bits
from xray.images.radiograph import MAX_PIXELS

Encoded = bytes | bytearray
"""What imagecodecs says that it returns."""
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def encode_j2k(pixels: np.ndarray, **options: Any) -> Encoded:
    """A JPEG 2000 codestream without loss."""
    return imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, level=0, **options)


def encode_rle(pixels: np.ndarray) -> bytes:
    """A frame in RLE (PS3.5, annex G): one segment for each byte of a word, the highest byte first."""
    planes = pixels.astype(pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(*pixels.shape, -1)
    segments = [
        b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in planes[..., plane])
        for plane in range(planes.shape[-1])
    ]
    padded = [segment + bytes(len(segment) % 2) for segment in segments]
    starts = [64 + sum(map(len, padded[:number])) for number in range(len(padded))]
    return struct.pack("<16L", len(padded), *starts, *[0] * (15 - len(padded))) + b"".join(padded)


ENCODERS: dict[UID, Callable[[np.ndarray], Encoded]] = {
    JPEGLossless: imagecodecs.ljpeg_encode,
    JPEGLosslessSV1: imagecodecs.ljpeg_encode,
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEG2000Lossless: encode_j2k,
    HTJ2KLossless: imagecodecs.htj2k_encode,
    RLELossless: encode_rle,
}
"""The encoder of each compressed transfer syntax without loss."""
LOSSY: dict[UID, Callable[[np.ndarray], Encoded]] = {
    JPEGBaseline8Bit: lambda pixels: imagecodecs.jpeg8_encode(pixels, level=95),
    JPEGLSNearLossless: lambda pixels: imagecodecs.jpegls_encode(pixels, level=2),
    JPEG2000: lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=False, level=60),
}
UNDEFINED_PIXELS = struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF)
SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
META_LENGTH = 140
"""Position of the length of the meta information that follows it."""
CANARY = "Canary^Bird"
"""The patient's name in every file, which must not appear in logs or responses."""


def make_header(pixels: np.ndarray, bits: int = 8, syntax: UID = ExplicitVRLittleEndian, **tags: Any) -> FileDataset:
    """The header of a DX file of a hand, without pixels; `tags` are added to the default ones or replace them."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = UID("1.2.826.0.1.3680043.10.1338.3")
    header = FileDataset(
        "",
        {},
        file_meta=meta,
        preamble=bytes(128),
        is_implicit_VR=syntax == ImplicitVRLittleEndian,
        is_little_endian=syntax != ExplicitVRBigEndian,
    )
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.826.0.1.3680043.10.1338.1", "1.2.826.0.1.3680043.10.1338.2"
    header.PatientName = CANARY
    header.PatientID = "CANARY-4711"
    header.PatientBirthDate = "19010203"
    header.AccessionNumber = "CANARY-0815"
    header.Modality = "DX"
    header.BodyPartExamined = "HAND"
    header.ImageLaterality = "L"
    header.ViewPosition = "PA"
    header.ImagerPixelSpacing = [0.15, 0.15]
    header.PresentationIntentType = "FOR PRESENTATION"
    header.Rows, header.Columns = pixels.shape
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 8 if bits <= 8 else 16, bits, bits - 1
    header.PixelRepresentation = 0
    for name, value in tags.items():
        if value is None:
            delattr(header, name)
        elif isinstance(value, DataElement):  # as some files have it, against the standard
            header.add(value)
        else:
            setattr(header, name, value)
    return header


def dicom(
    pixels: np.ndarray, bits: int = 8, syntax: UID = ExplicitVRLittleEndian, *, tail: bytes = b"", **tags: Any
) -> bytes:
    """The bytes of a DX file. `pixels` are stored values (H, W) of 8 or 16 bits; `tail` follows native pixels."""
    header = make_header(pixels, bits, syntax, **tags)
    word = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    words = pixels.astype(word) if pixels.dtype.kind == "u" else pixels.astype(f"i{word.itemsize}").view(word)
    if syntax in NATIVE:
        stored = words.astype(word.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")).tobytes()
        header.PixelData = stored + tail + bytes(len(stored + tail) % 2)
        header["PixelData"].VR = "OB" if bits <= 8 else "OW"
        return saved(header)
    return encapsulated(header, ({**ENCODERS, **LOSSY}[syntax])(words))


def lookup(first: int, bits: int, entries: np.ndarray, word: str = "<u2") -> list[Dataset]:
    """A sequence with one look-up table, whose descriptor is signed if the first value is negative."""
    item = Dataset()
    item.LUTDescriptor = [len(entries) & 0xFFFF, first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = entries.astype(word).tobytes()
    item["LUTData"].VR = "OW"
    return [item]


def encapsulated(header: Dataset, stream: Encoded = b"", raw: bytes | None = None) -> bytes:
    """A file with one codestream, or with `raw` as everything that follows the head of Pixel Data."""
    header.PixelData = encapsulate([bytes(stream) or b"\0\0"])
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    if raw is None:
        return saved(header)
    data = saved(header)
    return data[: data.rindex(UNDEFINED_PIXELS) + len(UNDEFINED_PIXELS)] + raw


def fragments(stream: bytes, pieces: int = 1, offsets: bytes = b"", end: bytes = SEQUENCE_END) -> bytes:
    """A codestream in `pieces` fragments after an offset table."""
    size = (len(stream) // pieces + 2) // 2 * 2
    items = [offsets, *(stream[start : start + size] for start in range(0, len(stream), size))]
    padded = (item + bytes(len(item) % 2) for item in items)
    return b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item for item in padded) + end


def stored_values(data: bytes) -> np.ndarray:
    """(H, W) stored values of an encapsulated file, as the service decodes them."""
    header, pixels = read_file(data, MAX_PIXELS)
    assert pixels is not None
    bits = read_stored_bits(header)
    shape = read_shape(header, MAX_PIXELS)
    words = decode_frame(pixels.pieces, header.file_meta.TransferSyntaxUID, shape, header.BitsAllocated, bits)
    return bits.values_V[bits.indices(words)].astype(int)


def saved(header: Dataset) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def data_set(data: bytes) -> bytes:
    """The data set of a file, which follows the meta information, inflated."""
    body = data[_start(data) :]
    if _is_deflated(data):
        return zlib.decompress(body, -zlib.MAX_WBITS)
    return body


def with_data_set(data: bytes, body: bytes) -> bytes:
    """A file with another data set."""
    if _is_deflated(data):
        deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        body = deflater.compress(body) + deflater.flush()
    return data[: _start(data)] + body


def _start(data: bytes) -> int:
    return META_LENGTH + 4 + int.from_bytes(data[META_LENGTH : META_LENGTH + 4], "little")


def _is_deflated(data: bytes) -> bool:
    return DeflatedExplicitVRLittleEndian.encode() in data[: _start(data)]


def inflating(data: bytes, size: int) -> bytes:
    """The meta information of a deflated file, followed by data that inflate to `size` zeros."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(1 << 20)
    body = b"".join(deflater.compress(zeros) for _ in range(size >> 20)) + deflater.flush()
    return data[: _start(data)] + body


def shown_by_dcmtk(data: bytes, folder: Path, *options: str) -> np.ndarray:
    """(H, W) uint8: what `dcmj2pnm` shows with the file's first window or look-up table."""
    source, target = folder / "shown.dcm", folder / "shown.png"
    source.write_bytes(data)
    run("dcmj2pnm", "+on", *(options or ("+Wi", "1")), source, target)
    return np.asarray(Image.open(target).convert("L"))


def recoded(tool: str, data: bytes, folder: Path, *options: str) -> bytes:
    """A file after one of dcmtk's encoders."""
    source, target = folder / "plain.dcm", folder / "coded.dcm"
    source.write_bytes(data)
    run(tool, *options, source, target)
    return target.read_bytes()


def run(*command: Any) -> str:
    """Run a program that must succeed, and return its output."""
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, timeout=HUNG_SECONDS, check=False
    )
    assert done.returncode == 0, f"{command[0]}: {done.stderr}"
    return done.stdout + done.stderr


def dataset_of(data: bytes) -> Dataset:
    """The data set of a file."""
    return dcmread(io.BytesIO(data))
