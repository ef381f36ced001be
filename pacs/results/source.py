"""Reading from a radiograph's file what its results take over. For a process apart: the file may be anything."""

import io
import warnings
import zlib

from pydicom import Dataset, config
from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator, read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pacs.results.patient_attributes import CHARACTER_SET, PATIENT_AND_STUDY, copied
from pacs.results.result import Source
from xray.images.dicom.decode import header_of
from xray.images.dicom.tags import facts_of, identity_of, text

LOSSY = "01"
"""Lossy Image Compression: what has once lost something remains so, whatever is made of it."""
META_START, META_GROUP = 132, 0x0002
"""Where a file's meta header begins (PS3.10 7.1), and its group."""
BEGIN = 64 << 10
"""Bytes of a deflated file's tags in which its character set is, if anywhere: only one tag may come before it."""
COMPRESSION = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")


def source_of(data: bytes, max_pixels: int) -> Source:
    """Read a file that has been decoded before.

    Raises:
        InputError: as `xray.images.dicom.decode.header_of`, or an attribute that says whose it is cannot be copied.
    """
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")  # they would repeat the patient's values
        return _source(data, max_pixels)


def _source(data: bytes, max_pixels: int) -> Source:
    header = header_of(data, max_pixels)
    _undecode_character_set(header, data)
    patient_and_study, left_out = copied(header, PATIENT_AND_STUDY)  # first: whatever is looked at is decoded
    compression, odd = copied(header, COMPRESSION)
    identity, facts = identity_of(header), facts_of(header)
    lossy = text(header, "LossyImageCompression") == LOSSY
    return Source(
        identity.study_uid,
        identity.series_uid,
        identity.instance_uid,
        identity.sop_class_uid,
        facts.laterality,
        facts.view,
        text(header, "BodyPartExamined"),
        lossy,
        identity.patient,
        patient_and_study,
        compression if lossy else (),
        left_out + odd,
    )


def _undecode_character_set(header: Dataset, data: bytes) -> None:
    """Put the character set back as it stands in the file; pydicom decodes that one element while it reads."""
    if CHARACTER_SET not in header:
        return
    stream = io.BytesIO(data)
    stream.seek(META_START)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != META_GROUP)
    if meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        stream = io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(), BEGIN))
    known = header.get_item("SOPClassUID")
    implicit, little = (
        (known.is_implicit_VR, known.is_little_endian) if isinstance(known, RawDataElement) else (False, True)
    )
    for element in data_element_generator(stream, implicit, little, lambda tag, *_: tag > CHARACTER_SET):
        if element.tag == CHARACTER_SET:
            header[CHARACTER_SET] = element
