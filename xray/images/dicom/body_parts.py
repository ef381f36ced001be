"""What DICOM calls a body part in, what MURA would call it out.

The terms are those of Body Part Examined, PS3.16 Annex L, with the spellings that modalities are seen to write.
"""

import re

LIMBS = {
    "XR_SHOULDER": ("SHOULDER", "CLAVICLE", "SCAPULA", "ACJOINT", "ACROMIOCLAVICULARJOINT", "GLENOHUMERALJOINT"),
    "XR_HUMERUS": ("HUMERUS", "ARM", "UPPERARM"),
    "XR_ELBOW": ("ELBOW", "ELBOWJOINT", "OLECRANON"),
    "XR_FOREARM": ("FOREARM", "RADIUS", "ULNA", "RADIUSULNA", "LOWERARM"),
    "XR_WRIST": ("WRIST", "WRISTJOINT", "SCAPHOID", "CARPUS"),
    "XR_HAND": ("HAND", "METACARPUS", "PALM"),
    "XR_FINGER": ("FINGER", "THUMB"),
    "XR_HIP": ("HIP", "HIPJOINT", "PELVIS", "PELVIC"),
    "XR_LEG": ("LEG", "LOWERLEG", "UPPERLEG", "THIGH", "FEMUR", "TIBIA", "FIBULA", "TIBIAFIBULA", "CALF"),
    "XR_KNEE": ("KNEE", "KNEEJOINT", "PATELLA"),
    "XR_ANKLE": ("ANKLE", "ANKLEJOINT"),
    "XR_FOOT": ("FOOT", "TOE", "CALCANEUS", "HEEL", "FOREFOOT", "METATARSUS"),
}
HEAD = (
    "HEAD",
    "HEADNECK",
    "JAW",
    "MANDIBLE",
    "MAXILLA",
    "NASALBONE",
    "NECK",
    "ORBIT",
    "SINUS",
    "SKULL",
    "TEETH",
    "ZYGOMA",
)
SPINE = ("CERVICALSPINE", "COCCYX", "CSPINE", "LSPINE", "LSSPINE", "LUMBARSPINE", "SACRUM", "SPINE", "SSPINE")
UPPER_SPINE = ("CTSPINE", "THORACICSPINE", "THORACOLUMBARSPINE", "TLSPINE", "TSPINE")
TRUNK = ("ABDOMEN", "BREAST", "CHEST", "CHESTABDOMEN", "HEART", "LUNG", "RIB", "STERNUM", "THORAX", "WHOLEBODY")
ELSEWHERE = frozenset((*HEAD, *SPINE, *UPPER_SPINE, *TRUNK))
"""Terms of parts that are no limb."""
TERMS = {term: body_part for body_part, terms in LIMBS.items() for term in terms}
SEPARATORS = re.compile(r"[^A-Z]")
SIDES = re.compile(r"^(LEFT|RIGHT|BILATERAL)|(LEFT|RIGHT)$")


def body_part_of(term: str) -> str | None:
    """`XR_*`; None where the term is none that we know."""
    return TERMS.get(_plain(term))


def is_elsewhere(term: str) -> bool:
    """Whether the term names a part that is certainly no limb."""
    return _plain(term) in ELSEWHERE


def _plain(term: str) -> str:
    """Capital letters only, one and no side: `Left Hands` becomes HAND."""
    letters = SIDES.sub("", SEPARATORS.sub("", term.upper()))
    return letters if letters in TERMS or letters in ELSEWHERE else letters.removesuffix("S")
