"""A radiograph is recognized by its SOP class, unless its modality says that it is something else."""

import pytest

from tests.dicom_files import dicom
from tests.phantoms import draw_phantom
from xray.errors import OutOfScopeError
from xray.images.dicom.decode import decode_dicom, identify
from xray.images.dicom.object_kind import RADIOGRAPH_CLASSES, skip_reason

CAPTURE, MAMMOGRAPHY, PRIVATE = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.1.2", "1.3.12.2.1107.5.9.1"
UNSURE = ("DR", "RG", "OT", "", None, "XR", "dx")


@pytest.mark.parametrize("modality", [*UNSURE, "CR", "DX"])
@pytest.mark.parametrize("sop_class", RADIOGRAPH_CLASSES)
def test_cr_and_dx_classes_are_radiographs_whatever_an_unsure_modality_says(
    modality: str | None, sop_class: str
) -> None:
    assert skip_reason(modality, sop_class) is None


@pytest.mark.parametrize("modality", ["CT", "MG", "SR", "PR", "KO", "SEG", "IO", "PX", "RF", "XA"])
def test_modality_that_names_something_else_is_left_alone_in_any_class(modality: str) -> None:
    assert {skip_reason(modality, each) for each in (*RADIOGRAPH_CLASSES, CAPTURE)} == {"another modality"}


def test_other_classes_are_radiographs_only_where_the_modality_says_so() -> None:
    assert skip_reason("DX", CAPTURE) is None
    assert skip_reason("DX", PRIVATE) is None
    for modality in UNSURE:
        assert skip_reason(modality, CAPTURE) == "another SOP class"
        assert skip_reason(modality, PRIVATE) == "a private SOP class"


def test_mammogram_that_is_called_dx_is_left_alone() -> None:
    assert skip_reason("DX", MAMMOGRAPHY) == "another SOP class"


@pytest.mark.parametrize("modality", ["DR", "RG", "OT", None])
def test_file_of_an_unsure_modality_is_identified_and_decoded_as_a_radiograph(modality: str | None) -> None:
    file = dicom(draw_phantom(seed=1), Modality=modality)
    assert identify(file).is_radiograph
    assert decode_dicom(file).pixels.shape == draw_phantom(seed=1).shape


def test_refusal_says_that_modality_and_class_are_not_those_of_a_radiograph() -> None:
    with pytest.raises(OutOfScopeError, match="Modality is OT, and the object is of another SOP class; send"):
        decode_dicom(dicom(draw_phantom(seed=1), Modality="OT", SOPClassUID=CAPTURE))
