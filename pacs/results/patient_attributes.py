"""The patient and study of a radiograph, copied from its header byte for byte and within bounds.

Results that bear other bytes than their radiographs would be filed or shown under another patient, so nothing is
decoded, repaired or shortened here: an attribute is copied as it is, left out and named, or the radiograph is refused.
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
"""Of type 2: a result has them, empty where the radiograph has none."""
DECISIVE = (*REQUIRED, "SpecificCharacterSet", "IssuerOfPatientID")
"""Without one of these that the radiograph has, a result would be another patient's."""
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
"""By these, too, an archive files or shows an object."""
PATIENT_AND_STUDY = DECISIVE + OPTIONAL
MAX_VALUE_BYTES = 4096
"""Of one text; three groups of a name have a tenth of that in any character set."""
MAX_SEQUENCE_BYTES = 64 << 10
MAX_LEVELS, MAX_ITEMS, MAX_ITEM_TAGS = 2, 64, 32
"""Sequences within a sequence, items of all of them together, and attributes of one item."""
TEXTS = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UT"))
"""Value representations whose bytes are the same in every transfer syntax."""
UNKNOWN = "UN"
CHARACTER_SET = Tag("SpecificCharacterSet")
ITEM_LITTLE, ITEM_BIG = struct.Struct("<HHL"), struct.Struct(">HHL")
ITEM_TAG, UNDEFINED_LENGTH = (0xFFFE, 0xE000), 0xFFFFFFFF


class NotCopyableError(Exception):
    """An attribute is too large, too deeply nested or damaged."""


def copied(header: Dataset, keywords: tuple[str, ...]) -> tuple[tuple[CopiedElement, ...], tuple[str, ...]]:
    """Those of the attributes that the header has, and the keywords of those that it has and that cannot be copied.

    The header's elements must be as they were read: one whose value has been looked at is decoded.

    Raises:
        UnreadableImageError: one that decides whose the radiograph is cannot be copied.
    """
    elements, failed = [], []
    for keyword in keywords:
        tag = Tag(keyword)
        if tag not in header:
            continue
        try:
            elements.append(CopiedElement(int(tag), _copied(header, tag)))
        except NotCopyableError as error:
            if keyword in DECISIVE:
                raise UnreadableImageError(
                    f"{tag} {dictionary_description(tag)} is damaged or has more than {MAX_VALUE_BYTES} bytes; export "
                    "the file again."
                ) from error
            failed.append(keyword)
    return tuple(elements), tuple(failed)


def empty(keyword: str) -> CopiedElement:
    """The attribute without a value."""
    tag = Tag(keyword)
    return CopiedElement(int(tag), _encoded(tag, dictionary_VR(tag), b""))


def _copied(header: Dataset, tag: BaseTag) -> bytes:
    if dictionary_VR(tag) != "SQ":
        return _encoded(tag, dictionary_VR(tag), _text(header, tag))
    budget = iter(range(MAX_ITEMS))
    try:
        return _sequence(header, tag, 1, budget)
    except NotCopyableError:
        raise
    except Exception as error:  # pydicom reports damage as almost any type
        raise NotCopyableError(f"{tag} is damaged") from error


def _text(header: Dataset, tag: BaseTag) -> bytes:
    """The bytes of a value."""
    element = header.get_item(tag)
    if tag == CHARACTER_SET and isinstance(element, DataElement):  # of an item: pydicom decodes it while it reads
        values = [element.value] if element.VM < 2 else element.value
        return "\\".join(str(each or "") for each in values).encode("latin-1")
    if not isinstance(element, RawDataElement) or element.VR not in (*TEXTS, UNKNOWN, None):
        raise NotCopyableError(f"{tag} is no text")
    value = element.value or b""
    if len(value) > MAX_VALUE_BYTES:
        raise NotCopyableError(f"{tag} is too long")
    if element.length not in (len(value), UNDEFINED_LENGTH):
        raise NotCopyableError(f"{tag} is cut off")
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
    return _encoded(tag, "SQ", content)


def _items(header: Dataset, tag: BaseTag) -> list[Dataset]:
    """Items whose own elements are as they were read. A level is parsed only once the one above it was found small."""
    element = header.get_item(tag)
    if not isinstance(element, RawDataElement):  # of undefined length, so it was parsed to find its end
        return list(element.value)
    value = element.value or b""
    if len(value) > MAX_SEQUENCE_BYTES or element.VR not in ("SQ", None):
        raise NotCopyableError(f"{tag} is too long or no sequence")
    stream, items = io.BytesIO(value), []
    while stream.tell() < len(value):
        items.append(_item(stream, element.is_implicit_VR, element.is_little_endian))
    return items


def _item(stream: io.BytesIO, implicit: bool, little: bool) -> Dataset:
    """The next item; pydicom alone would make something of bytes that are no item."""
    order = ITEM_LITTLE if little else ITEM_BIG
    group, number, length = order.unpack(stream.read(order.size))
    if (group, number) != ITEM_TAG:
        raise NotCopyableError("there is no item where one should be")
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
        raise NotCopyableError("the item is cut off")
    return item


def _element_of_item(item: Dataset, tag: BaseTag, level: int, budget: Iterator[int]) -> bytes:
    element = item.get_item(tag)
    vr = element.VR or dictionary_VR(tag)
    if vr == "SQ":
        return _sequence(item, tag, level + 1, budget)
    if vr not in TEXTS:
        raise NotCopyableError(f"{tag} is no text")
    return _encoded(tag, vr, _text(item, tag))


def _encoded(tag: BaseTag, vr: str, value: bytes) -> bytes:
    """Explicit VR Little Endian, of even length."""
    padding = b"\0" if vr == "UI" else b" "
    even = value + padding * (len(value) % 2)
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_data_element(stream, RawDataElement(tag, vr, len(even), even, 0, False, True))
    return stream.getvalue()
