"""Builds DICOM files with attributes of arbitrary bytes, and reads the bytes of attributes."""

import io
import struct
import warnings
import zlib
from collections.abc import Mapping

import numpy as np
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import data_element_generator, read_dataset
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.tag import Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from tests.dicom_files import make_header
from tests.phantoms import draw_phantom

Raw = tuple[str, bytes]
"""Value representation and value."""


def raw_file(raw: Mapping[str, Raw], syntax: UID = ExplicitVRLittleEndian, **tags: object) -> bytes:
    """Return a synthetic radiograph with exactly these attributes, by keyword."""
    pixels = draw_phantom(seed=1, height=64, width=64)
    header = make_header(pixels, 8, syntax, **tags)
    header.PixelData = pixels.astype(np.uint8).tobytes()
    header["PixelData"].VR = "OB"
    elements = {int(tag): _encoded(header[tag], syntax) for tag in sorted(header.keys())}
    for keyword, (vr, value) in raw.items():
        tag = Tag(keyword)
        raw_element = RawDataElement(tag, vr, len(value), value, 0, syntax.is_implicit_VR, syntax.is_little_endian)
        elements[int(tag)] = _encoded(raw_element, syntax)
    body = b"".join(elements[tag] for tag in sorted(elements))
    if syntax == DeflatedExplicitVRLittleEndian:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = deflater.compress(body) + deflater.flush()
    meta = _stream(ExplicitVRLittleEndian)
    write_file_meta_info(meta, header.file_meta)
    return bytes(128) + b"DICM" + meta.getvalue() + body


def raw_values(data: bytes) -> dict[str, bytes]:
    """Return the bytes of each attribute of a file in Explicit VR Little Endian, by tag, without padding."""
    stream = io.BytesIO(data)
    stream.seek(132)
    read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom, about character sets
        elements = list(data_element_generator(stream, False, True, lambda tag, *_: tag.group >= 0x7FE0))
    return {f"{each.tag:08X}": (each.value or b"").rstrip(b" \0") for each in elements if isinstance(each.value, bytes)}


def sequence(*items: bytes, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """Return the value of a sequence with these items."""
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    return b"".join(struct.pack(f"{order}HHL", 0xFFFE, 0xE000, len(item)) + item for item in items)


def element(keyword: str, vr: str, value: bytes, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """Return one encoded attribute of a file or an item."""
    tag = Tag(keyword)
    return _encoded(
        RawDataElement(tag, vr, len(value), value, 0, syntax.is_implicit_VR, syntax.is_little_endian), syntax
    )


def _encoded(each: DataElement | RawDataElement, syntax: UID) -> bytes:
    stream = _stream(syntax)
    write_data_element(stream, each)
    return stream.getvalue()


def _stream(syntax: UID) -> DicomBytesIO:
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    return stream
