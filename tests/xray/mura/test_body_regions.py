"""Body parts of different datasets are compared by their region."""

import pytest

from xray.images.dicom.body_parts import LIMB_TERMS
from xray.mura.body_regions import MIXED, REGION_OF, is_same_region


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("XR_KNEE", "XR_LEG", True),
        ("XR_WRIST", "XR_HAND", True),
        ("XR_HUMERUS", "XR_SHOULDER", True),
        ("XR_HAND", "XR_FOOT", False),
        ("XR_HIP", "XR_LEG", False),
        ("XR_JAW", "XR_JAW", True),
        ("XR_JAW", "XR_HAND", False),
        (MIXED, "XR_HAND", False),
        (MIXED, MIXED, False),
    ],
)
def test_body_parts_agree_if_their_region_is_the_same(one: str, other: str, same: bool) -> None:
    assert is_same_region(one, other) == is_same_region(other, one) == same


def test_every_limb_that_a_dicom_file_can_name_has_a_region() -> None:
    assert LIMB_TERMS.keys() <= REGION_OF.keys()
