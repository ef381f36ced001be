"""Equal patients are equal in any encoding, and different patients stay different."""

from typing import Any

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from tests.dicom_files import CANARY, dicom
from xray.images.dicom.decode import identify
from xray.images.patient_identity import Patient

PIXELS = np.zeros((16, 16), np.uint8)
NAME = "Müller^Jörg"


def patient(**tags: Any) -> Patient:
    return identify(dicom(PIXELS, **tags)).patient


def rewritten(old: bytes, new: bytes, **tags: Any) -> Patient:
    """The patient of a file with bytes that pydicom would not write."""
    data = dicom(PIXELS, **tags)
    assert data.count(old) == 1
    return identify(data.replace(old, new.ljust(len(old)))).patient


def test_a_files_patient_is_read_in_every_native_syntax() -> None:
    usual = patient()
    assert (usual.id, usual.birth_date, usual.name, usual.issuer) == ("canary-4711", "19010203", "canary bird", "")
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        assert patient(syntax=syntax) == usual


@pytest.mark.parametrize(
    "tags",
    [
        {"PatientID": "  CANARY-4711 "},
        {"PatientID": "canary-4711"},
        {"PatientName": "CANARY^BIRD"},
        {"PatientName": "Canary^Bird^^^"},
        {"PatientName": "Canary^Bird=鳥"},
    ],
)
def test_padding_case_and_other_scripts_make_no_other_patient(tags: dict[str, object]) -> None:
    if "鳥" in str(tags):
        tags["SpecificCharacterSet"] = "ISO_IR 192"
    assert patient(**tags) == patient()


def test_character_set_and_accents_make_no_other_patient() -> None:
    latin = patient(PatientName=NAME, PatientID="Ä-7", SpecificCharacterSet="ISO_IR 100")
    assert latin == patient(PatientName=NAME, PatientID="Ä-7", SpecificCharacterSet="ISO_IR 192")
    assert latin.name == patient(PatientName="Muller^Jorg").name
    assert latin.id != patient(PatientID="A-7").id


def test_nul_padding_makes_no_other_patient() -> None:
    assert rewritten(b"CANARY-4711 ", b"CANARY-4711\0") == patient()


def test_bytes_outside_the_character_set_stay_different() -> None:
    tags = {"PatientID": "ID-12345", "SpecificCharacterSet": "ISO_IR 192"}
    one, other = rewritten(b"ID-12345", b"ID-\xff\xfe345", **tags), rewritten(b"ID-12345", b"ID-\xfd\xfc345", **tags)
    assert one != other
    assert one == rewritten(b"ID-12345", b"ID-\xff\xfe345", **tags)


def test_unknown_character_set_and_missing_tags_are_no_failure() -> None:
    assert patient(SpecificCharacterSet="ISO_IR 999").id == "canary-4711"
    absent = dict.fromkeys(("PatientName", "PatientID", "PatientBirthDate"))
    assert patient(**absent) == Patient()


def test_identifier_of_any_length_is_compared_whole() -> None:
    assert patient(PatientID="1" * 5000 + "2") != patient(PatientID="1" * 5000 + "3")


def test_patient_is_not_shown_by_accident() -> None:
    shown = repr(identify(dicom(PIXELS)))
    assert CANARY.split("^")[0].casefold() not in shown.casefold()
    assert "4711" not in shown
