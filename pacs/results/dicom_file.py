"""A result as the bytes of a DICOM file, with what it copies from its radiograph byte for byte."""

from collections.abc import Iterable

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr, write_data_element, write_file_meta_info
from pydicom.tag import Tag

from pacs.results.patient_attributes import PATIENT_AND_STUDY, REQUIRED, empty
from pacs.results.result import CopiedElement

PREAMBLE = bytes(128) + b"DICM"


def file_of(result: Dataset, copied: Iterable[CopiedElement]) -> bytes:
    """Write a result in Explicit VR Little Endian: its own elements, and those that are copied in their place.

    Patient, study and character set are the copied ones alone. The result's own texts have to be ASCII, which every
    character set has.
    """
    correct_ambiguous_vr(result, True)
    elements = {int(tag): _written(result, tag) for tag in sorted(result.keys())}
    for keyword in PATIENT_AND_STUDY:
        elements.pop(int(Tag(keyword)), None)
    for each in (*(empty(keyword) for keyword in REQUIRED), *copied):
        elements[each.tag] = each.encoded
    meta = DicomBytesIO()
    meta.is_implicit_VR, meta.is_little_endian = False, True
    write_file_meta_info(meta, result.file_meta, enforce_standard=True)
    return b"".join((PREAMBLE, meta.getvalue(), *(elements[tag] for tag in sorted(elements))))


def _written(result: Dataset, tag: int) -> bytes:
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_data_element(stream, result[tag])
    return stream.getvalue()
