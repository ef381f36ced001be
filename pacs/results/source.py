"""Reads the attributes of a radiograph that its results repeat, in a worker process because files may be hostile."""

import io
import warnings
import zlib

from pydicom import Dataset, config
from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator, read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pacs.results.patient_attributes import CHARACTER_SET, PATIENT_AND_STUDY, copy_elements
from pacs.results.result import Source
from xray.images.dicom.decode import read_header
from xray.images.dicom.tags import read_facts, read_identity
from xray.images.dicom.values import read_code

LOSSY = "01"
"""Value of Lossy Image Compression for an image that was ever compressed with loss (PS3.3 C.7.6.1.1.5)."""
META_START, META_GROUP = 132, 0x0002
"""Offset of a file's meta header in bytes (PS3.10 7.1), and the group number of its elements."""
INFLATED_BYTES = 64 << 10
"""Number of bytes of a deflated file to inflate to find its character set, which is at its start."""
COMPRESSION_KEYWORDS = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")


def read_source(data: bytes, max_pixels: int) -> Source:
    """Read the `Source` of a finding from its radiograph: the attributes that results repeat.

    The radiograph must have been decoded without errors before.

    Raises:
        InputError: the file is invalid (see `read_header`), or an attribute of the patient cannot be copied.
    """
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")  # pydicom's warnings repeat the patient's values
        return _source(data, max_pixels)


def _source(data: bytes, max_pixels: int) -> Source:
    header = read_header(data, max_pixels)
    _undecode_character_set(header, data)
    patient_and_study, left_out = copy_elements(header, PATIENT_AND_STUDY)  # before any value is accessed
    compression, not_copied = copy_elements(header, COMPRESSION_KEYWORDS)
    identity, facts = read_identity(header), read_facts(header)
    lossy = read_code(header, "LossyImageCompression") == LOSSY
    return Source(
        identity.study_uid,
        identity.series_uid,
        identity.instance_uid,
        identity.sop_class_uid,
        facts.laterality,
        facts.view,
        read_code(header, "BodyPartExamined"),
        lossy,
        identity.patient,
        patient_and_study,
        compression if lossy else (),
        left_out + not_copied,
    )


def _undecode_character_set(header: Dataset, data: bytes) -> None:
    """Restore the character set's original bytes, because pydicom decodes that element while reading."""
    if CHARACTER_SET not in header:
        return
    stream = io.BytesIO(data)
    stream.seek(META_START)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != META_GROUP)
    if meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        stream = io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(), INFLATED_BYTES))
    known = header.get_item("SOPClassUID")
    implicit, little = (
        (known.is_implicit_VR, known.is_little_endian) if isinstance(known, RawDataElement) else (False, True)
    )
    for element in data_element_generator(stream, implicit, little, lambda tag, *_: tag > CHARACTER_SET):
        if element.tag == CHARACTER_SET:
            header[CHARACTER_SET] = element
