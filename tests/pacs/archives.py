"""Radiographs to store, and a check that errors hold no patient data, for the tests of the archive client."""

import io
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian

from pacs.errors import PacsError
from tests.dicom_files import CANARY, dicom

UIDS = "1.2.826.0.1.3680043.10.1338"
PIXELS = np.random.default_rng(1).integers(0, 4096, (64, 48)).astype(np.uint16)


def instance(study: int, number: int, syntax: UID = ExplicitVRLittleEndian, **tags: Any) -> Dataset:
    """Return one radiograph in a series of its own."""
    own: dict[str, Any] = {
        "StudyInstanceUID": f"{UIDS}.{study}",
        "SeriesInstanceUID": f"{UIDS}.{study}.{number}",
        "SOPInstanceUID": f"{UIDS}.{study}.{number}.1",
    }
    dataset = dcmread(io.BytesIO(dicom(PIXELS, 12, syntax, **{**own, **tags})))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    return dataset


@contextmanager
def raises(kind: type[PacsError], *words: str) -> Iterator[None]:
    """Expect an error of exactly this type with these words, and without patient data in its traceback."""
    with pytest.raises(kind) as caught:
        yield
    assert type(caught.value) is kind
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    for word in words:
        assert word in str(caught.value)
