"""The region of the body that a body part of a dataset belongs to, because datasets cut the body differently.

FracAtlas calls knees and ankles `XR_LEG`, where MURA's pattern has a name for each joint.
"""

REGIONS = {
    "hand to elbow": ("XR_FINGER", "XR_HAND", "XR_WRIST", "XR_FOREARM", "XR_ELBOW"),
    "upper arm and shoulder": ("XR_HUMERUS", "XR_SHOULDER", "XR_CLAVICLE", "XR_SCAPULA"),
    "hip and pelvis": ("XR_HIP", "XR_PELVIS"),
    "thigh to foot": (
        "XR_LEG",
        "XR_FEMUR",
        "XR_KNEE",
        "XR_PATELLA",
        "XR_TIBIA",
        "XR_FIBULA",
        "XR_ANKLE",
        "XR_FOOT",
        "XR_CALCANEUS",
        "XR_TOE",
    ),
}
"""The body parts of each region: those of MURA, those that DICOM files are given, and those of open datasets."""
MIXED = "XR_MIXED"
"""FracAtlas' name for radiographs of several body parts; they belong to no region."""
REGION_OF = {part: region for region, parts in REGIONS.items() for part in parts}
"""The region of each body part."""


def body_region(body_part: str) -> str | None:
    """Return the region of a body part; None for `MIXED`, and an unknown body part itself as a region of its own."""
    return None if body_part == MIXED else REGION_OF.get(body_part, body_part)


def is_same_region(body_part: str, other: str) -> bool:
    """Return whether two body parts belong to the same region; a mixed one agrees with none, not even with another."""
    region = body_region(body_part)
    return region is not None and region == body_region(other)
