"""Translates DICOM's terms for body parts to MURA's names.

The terms are those of Body Part Examined (DICOM PS3.16, Annex L), with spellings that occur in files.
"""

import re

LIMB_TERMS = {
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
"""The terms for each body part. MURA has the body parts of the arm; the names of the others follow its pattern."""
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
OTHER_TERMS = frozenset((*HEAD, *SPINE, *UPPER_SPINE, *TRUNK))
"""Terms for body parts that are not limbs."""
BODY_PARTS = {term: body_part for body_part, terms in LIMB_TERMS.items() for term in terms}
"""The body part for each term."""
NOT_A_LETTER = re.compile(r"[^A-Z]")
SIDES = re.compile(r"^(LEFT|RIGHT|BILATERAL)|(LEFT|RIGHT)$")


def to_mura_body_part(term: str) -> str | None:
    """Return MURA's body part `XR_*` for one of DICOM's terms; None if the term is unknown."""
    return BODY_PARTS.get(_normalize(term))


def is_other_body_part(term: str) -> bool:
    """Return whether one of DICOM's terms names a body part that is not a limb."""
    return _normalize(term) in OTHER_TERMS


def _normalize(term: str) -> str:
    """Keep the capital letters of a term, without its side and plural: `Left Hands` becomes HAND."""
    letters = SIDES.sub("", NOT_A_LETTER.sub("", term.upper()))
    return letters if letters in BODY_PARTS or letters in OTHER_TERMS else letters.removesuffix("S")
