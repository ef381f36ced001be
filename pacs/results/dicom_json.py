"""Writes data sets in the DICOM JSON model (PS3.18 F); a value that cannot be written there is left empty."""

import json
import warnings
from collections.abc import Iterable
from typing import Any

from pydicom import Dataset, config
from pydicom.tag import Tag

BULK = (Tag("PixelData"), Tag("FloatPixelData"), Tag("DoubleFloatPixelData"))

DicomJson = dict[str, Any]


def written(dataset: Dataset, tags: Iterable[int] | None = None) -> DicomJson:
    """The elements of these tags that the data set has, or all of it but its pixels.

    Archives and modalities write values that their VR does not allow. Such a value costs its own element, not the
    whole reply, and neither a log nor an error repeats it.
    """
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")  # they repeat the values
        wanted = dataset.keys() if tags is None else [tag for tag in sorted(tags) if tag in dataset]
        return {f"{int(tag):08X}": _element(dataset, tag) for tag in wanted if tag not in BULK}


def _element(dataset: Dataset, tag: int) -> DicomJson:
    try:
        found: DicomJson = dataset[tag].to_json_dict(None, 0)
        json.dumps(found, allow_nan=False)
    except Exception:  # pydicom parses it only now, and reports damage as almost any type
        return {"vr": dataset.get_item(tag).VR or "UN"}
    return found
