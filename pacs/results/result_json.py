"""A result as DICOM JSON (PS3.18 F), without its pixels.

JSON is Unicode, and a text is in it only where its bytes are valid in the character set that the file declares. Any
other text is left out: guessed letters would be another patient's name. The file itself has the bytes.
"""

import io
import re
import warnings
from typing import Any

from pydicom import DataElement, Dataset, config, dcmread
from pydicom.charset import convert_encodings, decode_bytes, default_encoding, python_encoding
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, TEXT_VR_DELIMS

from pacs.results.patient_attributes import TEXTS

Json = dict[str, Any]

CHARACTER_SET = Tag("SpecificCharacterSet")
UNICODE = "ISO_IR 192"
ASCII = "ascii"
KNOWN = frozenset(each.lower().replace("-", "") for each in python_encoding.values())
"""Encodings of DICOM's character sets, in the spelling that `_is_known` compares."""
PLAIN = re.compile(rb"[\t\n\f\r\x20-\x7e]*\0?")
"""Bytes that mean the same in every character set."""
HIGH_IN_ASCII = re.compile(rb"\x1b\(B[^\x1b]*[\x80-\xff]")
"""An escape to ASCII and then what is none."""
DELIMITERS = TEXT_VR_DELIMS | set(b"^=\\")
"""Characters after which the first character set is in force again (PS3.5 6.1.2.5.3)."""


def json_of(data: bytes) -> Json:
    """Describe a file of our own."""
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")  # they would repeat the patient's values
        result = dcmread(io.BytesIO(data), stop_before_pixels=True)
        _make_unicode(result, [ASCII])
        described: Json = result.to_json_dict(suppress_invalid_tags=True)
    return described


def _make_unicode(dataset: Dataset, encodings: list[str]) -> None:
    """Decode what the character set allows for and delete the rest; items may declare sets of their own."""
    if CHARACTER_SET in dataset:
        encodings = _encodings(dataset)
        dataset.SpecificCharacterSet = UNICODE
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if element.VR == "SQ":
            for item in dataset[tag].value:
                _make_unicode(item, encodings)
        elif isinstance(element, RawDataElement) and element.VR in TEXTS:
            _decode(dataset, tag, element, encodings)


def _encodings(dataset: Dataset) -> list[str]:
    """Python's names of the declared sets; one that no standard knows counts as ASCII, which all of them hold."""
    declared = dataset.SpecificCharacterSet or ""
    terms = [term.strip(" \0") for term in ([declared] if isinstance(declared, str) else declared)]
    known = convert_encodings(terms)
    return [ASCII if each == default_encoding or not _is_known(each) else each for each in known]


def _is_known(encoding: str) -> bool:
    """Whether it is one of DICOM's, and none that only Python knows."""
    return encoding.lower().replace("-", "") in KNOWN


def _decode(dataset: Dataset, tag: BaseTag, element: RawDataElement, encodings: list[str]) -> None:
    value = element.value or b""
    if PLAIN.fullmatch(value):
        return
    try:
        text = _strictly(value, encodings if element.VR in CUSTOMIZABLE_CHARSET_VR else [ASCII])
    except (LookupError, UnicodeError, ValueError, Warning):
        del dataset[tag]
        return
    dataset[tag] = DataElement(tag, element.VR or "UN", text.rstrip(" \0"))


def _strictly(value: bytes, encodings: list[str]) -> str:
    """Raises an error of Python's codecs or a warning of pydicom's where the bytes are not valid in these sets."""
    if HIGH_IN_ASCII.search(value):
        raise ValueError("these bytes are no ASCII")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return decode_bytes(value, encodings, DELIMITERS)
