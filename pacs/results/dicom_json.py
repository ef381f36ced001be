"""Converts results and search matches to DICOM JSON (PS3.18 F), without their pixels.

JSON is Unicode, so a text is only included if its bytes are valid in the character set that the file declares. Other
texts are left out, because guessed letters could spell another patient's name. The file itself keeps the bytes.
"""

import io
import json
import re
import warnings
from collections.abc import Iterable
from typing import Any

from pydicom import DataElement, Dataset, config, dcmread
from pydicom.charset import convert_encodings, decode_bytes, default_encoding, python_encoding
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, TEXT_VR_DELIMS

from pacs.results.patient_attributes import CHARACTER_SET, TEXT_VRS

DicomJson = dict[str, Any]
"""A data set, keyed by tag, such as {"00100020": {"vr": "LO", "Value": ["1"]}}."""

PIXEL_TAGS = (Tag("PixelData"), Tag("FloatPixelData"), Tag("DoubleFloatPixelData"))
UNICODE = "ISO_IR 192"
"""DICOM's name for UTF-8, the character set of all JSON."""
ASCII = "ascii"
KNOWN_ENCODINGS = frozenset(each.lower().replace("-", "") for each in python_encoding.values())
"""Python's names of the encodings that DICOM supports, normalized as in `_is_known`."""
PLAIN = re.compile(rb"[\t\n\f\r\x20-\x7e]*\0?")
"""Bytes with the same meaning in every character set."""
HIGH_IN_ASCII = re.compile(rb"\x1b\(B[^\x1b]*[\x80-\xff]")
"""An escape sequence to ASCII, followed by bytes that are not ASCII."""
DELIMITERS = TEXT_VR_DELIMS | set(b"^=\\")
"""Characters after which the first character set applies again (PS3.5 6.1.2.5.3)."""


def dataset_to_json(dataset: Dataset, tags: Iterable[int] | None = None) -> DicomJson:
    """Convert a data set to DICOM JSON: the elements of `tags` that it has, or all except the pixels.

    Archives and modalities write values that their VR does not allow. Such an element is returned without a value, and
    neither a log nor an error repeats the value.
    """
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")  # pydicom's warnings repeat the values
        selected = dataset.keys() if tags is None else [tag for tag in sorted(tags) if tag in dataset]
        return {f"{int(tag):08X}": _element(dataset, tag) for tag in selected if tag not in PIXEL_TAGS}


def _element(dataset: Dataset, tag: int) -> DicomJson:
    try:
        element: DicomJson = dataset[tag].to_json_dict(None, 0)
        json.dumps(element, allow_nan=False)
    except Exception:  # pydicom parses the value only now, and raises almost any type on damaged data
        return {"vr": dataset.get_item(tag).VR or "UN"}
    return element


def result_to_json(data: bytes) -> DicomJson:
    """Convert a result's DICOM file to DICOM JSON: all its elements except the pixels."""
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")  # pydicom's warnings repeat the patient's values
        result = dcmread(io.BytesIO(data), stop_before_pixels=True)
        _make_unicode(result, [ASCII])
        converted: DicomJson = result.to_json_dict(suppress_invalid_tags=True)
    return converted


def _make_unicode(dataset: Dataset, encodings: list[str]) -> None:
    """Decode the texts that are valid in the character set and delete the others; items may declare their own set."""
    if CHARACTER_SET in dataset:
        encodings = _encodings(dataset)
        dataset.SpecificCharacterSet = UNICODE
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if element.VR == "SQ":
            for item in dataset[tag].value:
                _make_unicode(item, encodings)
        elif isinstance(element, RawDataElement) and element.VR in TEXT_VRS:
            _decode(dataset, tag, element, encodings)


def _encodings(dataset: Dataset) -> list[str]:
    """Return Python's names of the declared character sets; unknown ones count as ASCII, the common subset of all."""
    declared = dataset.SpecificCharacterSet or ""
    terms = [term.strip(" \0") for term in ([declared] if isinstance(declared, str) else declared)]
    known = convert_encodings(terms)
    return [ASCII if each == default_encoding or not _is_known(each) else each for each in known]


def _is_known(encoding: str) -> bool:
    """Return whether DICOM supports the encoding; Python supports more."""
    return encoding.lower().replace("-", "") in KNOWN_ENCODINGS


def _decode(dataset: Dataset, tag: BaseTag, element: RawDataElement, encodings: list[str]) -> None:
    value = element.value or b""
    if PLAIN.fullmatch(value):
        return
    try:
        text = _decode_strictly(value, encodings if element.VR in CUSTOMIZABLE_CHARSET_VR else [ASCII])
    except (LookupError, UnicodeError, ValueError, Warning):
        del dataset[tag]
        return
    dataset[tag] = DataElement(tag, element.VR or "UN", text.rstrip(" \0"))


def _decode_strictly(value: bytes, encodings: list[str]) -> str:
    """Decode a value. Raises a codec error or a warning of pydicom if the bytes are not valid in these encodings."""
    if HIGH_IN_ASCII.search(value):
        raise ValueError("bytes after an escape sequence to ASCII are not ASCII")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return decode_bytes(value, encodings, DELIMITERS)
