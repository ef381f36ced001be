"""Encodes a result as a DICOM file, with attributes that are copied from its radiograph byte for byte."""

from collections.abc import Iterable

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr, write_data_element, write_file_meta_info
from pydicom.tag import Tag

from pacs.results.patient_attributes import PATIENT_AND_STUDY, REQUIRED, empty_element
from pacs.results.result import CopiedElement

PREAMBLE = bytes(128) + b"DICM"
"""Start of every DICOM file (PS3.10 7.1)."""


def encode_file(result: Dataset, copied: Iterable[CopiedElement]) -> bytes:
    """Return a result's DICOM file in Explicit VR Little Endian, with its own elements and the copied ones.

    The attributes of patient, study and character set come only from the copied ones. The result's own texts must be
    ASCII, which is part of every character set.
    """
    correct_ambiguous_vr(result, True)
    elements = {int(tag): _encode(result, tag) for tag in sorted(result.keys())}
    for keyword in PATIENT_AND_STUDY:
        elements.pop(int(Tag(keyword)), None)
    for each in (*(empty_element(keyword) for keyword in REQUIRED), *copied):
        elements[each.tag] = each.encoded
    meta = DicomBytesIO()
    meta.is_implicit_VR, meta.is_little_endian = False, True
    write_file_meta_info(meta, result.file_meta, enforce_standard=True)
    return b"".join((PREAMBLE, meta.getvalue(), *(elements[tag] for tag in sorted(elements))))


def _encode(result: Dataset, tag: int) -> bytes:
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_data_element(stream, result[tag])
    return stream.getvalue()
