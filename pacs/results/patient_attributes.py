"""Copies the patient and study attributes of a radiograph byte for byte, within limits.

Results whose bytes differ from their radiographs' would be filed or shown under another patient. So nothing is
decoded, repaired or shortened: an attribute is copied unchanged or left out and reported, or the radiograph is refused.
"""

import io
import struct
from collections.abc import Iterator

from pydicom import Dataset
from pydicom.datadict import dictionary_description, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset, read_sequence_item
from pydicom.filewriter import write_data_element
from pydicom.tag import BaseTag, Tag

from pacs.results.result import CopiedElement
from xray.errors import UnreadableImageError

REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Type 2 attributes, which every result has; they are empty if the radiograph has no value."""
IDENTIFYING = (*REQUIRED, "SpecificCharacterSet", "IssuerOfPatientID")
"""A result without one of these could be filed under another patient, so the radiograph is refused instead."""
OPTIONAL = (
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "PatientAge",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
)
"""Attributes that archives also use to file or display objects; one that cannot be copied is left out."""
PATIENT_AND_STUDY = IDENTIFYING + OPTIONAL
MAX_VALUE_BYTES = 4096
"""Size limit of one text, in bytes. A name with three groups is less than a tenth of that in any character set."""
MAX_SEQUENCE_BYTES = 64 << 10
"""Size limit of one sequence with all its items, in bytes."""
MAX_LEVELS, MAX_ITEMS, MAX_ITEM_TAGS = 2, 64, 32
"""Maximum depth of nested sequences, number of items in all of them together, and number of attributes in one item."""
TEXT_VRS = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UT"))
"""Value representations that have the same bytes in every transfer syntax."""
UNKNOWN_VR = "UN"
CHARACTER_SET = Tag("SpecificCharacterSet")
ITEM_LITTLE, ITEM_BIG = struct.Struct("<HHL"), struct.Struct(">HHL")
"""Group, element and length at the start of an item, in little and in big endian (PS3.5 7.5)."""
ITEM_TAG, UNDEFINED_LENGTH = (0xFFFE, 0xE000), 0xFFFFFFFF


class NotCopyableError(Exception):
    """A patient's or other attribute cannot be copied byte for byte: it is too large, too deeply nested or damaged."""


def copy_elements(header: Dataset, keywords: tuple[str, ...]) -> tuple[tuple[CopiedElement, ...], tuple[str, ...]]:
    """Copy a header's attributes, such as the patient's; return them, and the keywords of those that cannot be copied.

    No value of the header may have been accessed before, because pydicom decodes a value on access.

    Raises:
        UnreadableImageError: an attribute that identifies the patient cannot be copied.
    """
    elements, failed = [], []
    for keyword in keywords:
        tag = Tag(keyword)
        if tag not in header:
            continue
        try:
            elements.append(CopiedElement(int(tag), _copy(header, tag)))
        except NotCopyableError as error:
            if keyword in IDENTIFYING:
                raise UnreadableImageError(
                    f"{tag} {dictionary_description(tag)} is damaged or has more than {MAX_VALUE_BYTES} bytes; export "
                    "the file again."
                ) from error
            failed.append(keyword)
    return tuple(elements), tuple(failed)


def empty_element(keyword: str) -> CopiedElement:
    """Return a patient or study attribute of a result without a value."""
    tag = Tag(keyword)
    return CopiedElement(int(tag), _encode(tag, dictionary_VR(tag), b""))


def _copy(header: Dataset, tag: BaseTag) -> bytes:
    if dictionary_VR(tag) != "SQ":
        return _encode(tag, dictionary_VR(tag), _text_value(header, tag))
    budget = iter(range(MAX_ITEMS))
    try:
        return _sequence(header, tag, 1, budget)
    except NotCopyableError:
        raise
    except Exception as error:  # pydicom raises almost any type on damaged data
        raise NotCopyableError(f"{tag} is damaged") from error


def _text_value(header: Dataset, tag: BaseTag) -> bytes:
    """Return the bytes of a value."""
    element = header.get_item(tag)
    if tag == CHARACTER_SET and isinstance(element, DataElement):  # in an item, pydicom decodes it while reading
        values = [element.value] if element.VM < 2 else element.value
        return "\\".join(str(each or "") for each in values).encode("latin-1")
    if not isinstance(element, RawDataElement) or element.VR not in (*TEXT_VRS, UNKNOWN_VR, None):
        raise NotCopyableError(f"{tag} is not a text")
    value = element.value or b""
    if len(value) > MAX_VALUE_BYTES:
        raise NotCopyableError(f"{tag} is too long")
    if element.length not in (len(value), UNDEFINED_LENGTH):
        raise NotCopyableError(f"{tag} is truncated")
    return bytes(value)


def _sequence(header: Dataset, tag: BaseTag, level: int, budget: Iterator[int]) -> bytes:
    if level > MAX_LEVELS:
        raise NotCopyableError(f"{tag} is nested too deeply")
    content = b""
    for item in _items(header, tag):
        if next(budget, None) is None or len(item) > MAX_ITEM_TAGS:
            raise NotCopyableError(f"{tag} is too large")
        encoded = b"".join(_element_of_item(item, each, level, budget) for each in sorted(item.keys()))
        content += ITEM_LITTLE.pack(*ITEM_TAG, len(encoded)) + encoded
    if len(content) > MAX_SEQUENCE_BYTES:
        raise NotCopyableError(f"{tag} is too long")
    return _encode(tag, "SQ", content)


def _items(header: Dataset, tag: BaseTag) -> list[Dataset]:
    """Return the items with undecoded elements. A level is parsed only if the level above is within the limits."""
    element = header.get_item(tag)
    if not isinstance(element, RawDataElement):  # pydicom parsed it, because its length is undefined
        return list(element.value)
    value = element.value or b""
    if len(value) > MAX_SEQUENCE_BYTES or element.VR not in ("SQ", None):
        raise NotCopyableError(f"{tag} is too long or not a sequence")
    stream, items = io.BytesIO(value), []
    while stream.tell() < len(value):
        items.append(_item(stream, element.is_implicit_VR, element.is_little_endian))
    return items


def _item(stream: io.BytesIO, implicit: bool, little: bool) -> Dataset:
    """Read the next item; pydicom alone would accept bytes that are not an item."""
    order = ITEM_LITTLE if little else ITEM_BIG
    group, number, length = order.unpack(stream.read(order.size))
    if (group, number) != ITEM_TAG:
        raise NotCopyableError("an item is missing where one is expected")
    if length == UNDEFINED_LENGTH:
        stream.seek(-order.size, io.SEEK_CUR)
        item = read_sequence_item(stream, implicit, little, "iso8859")
        if item is None:
            raise NotCopyableError("the item has no end")
        return item
    body = stream.read(length)
    item = read_dataset(io.BytesIO(body), implicit, little, bytelength=length, at_top_level=False)
    elements: list[object] = [item.get_item(tag) for tag in sorted(item.keys())]
    ends = [each.value_tell + each.length for each in elements if isinstance(each, RawDataElement)]
    if len(body) < length or (len(ends) == len(elements) and max(ends, default=0) != length):
        raise NotCopyableError("the item is truncated")
    return item


def _element_of_item(item: Dataset, tag: BaseTag, level: int, budget: Iterator[int]) -> bytes:
    element = item.get_item(tag)
    vr = element.VR or dictionary_VR(tag)
    if vr == "SQ":
        return _sequence(item, tag, level + 1, budget)
    if vr not in TEXT_VRS:
        raise NotCopyableError(f"{tag} is not a text")
    return _encode(tag, vr, _text_value(item, tag))


def _encode(tag: BaseTag, vr: str, value: bytes) -> bytes:
    """Encode an element in Explicit VR Little Endian, padded to an even length."""
    padding = b"\0" if vr == "UI" else b" "
    even = value + padding * (len(value) % 2)
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_data_element(stream, RawDataElement(tag, vr, len(even), even, 0, False, True))
    return stream.getvalue()
