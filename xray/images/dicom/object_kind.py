"""Decides by SOP class and modality which DICOM objects are radiographs.

Both are needed, because many sites write DR, RG, OT or nothing as the modality of images from a CR or DX detector.
"""

from typing import Literal

SkipReason = Literal["another modality", "another SOP class", "a private SOP class"]
"""Why an object is not analyzed."""

PRIVATE_CLASS: SkipReason = "a private SOP class"

RADIOGRAPH_MODALITIES = ("CR", "DX")
RADIOGRAPH_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray, for processing
)
OTHER_XRAY_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1.2",  # Digital Mammography X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.1.3",  # Digital Intra-Oral X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.3.1",
)
"""SOP classes of X-rays of breasts and teeth, regardless of the modality."""
STANDARD_ROOT = "1.2.840.10008."
"""Prefix of the UIDs that the DICOM standard defines."""
# fmt: off
OTHER_MODALITIES = frozenset((
    "ANN", "AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CFM", "CT", "CTPROTOCOL", "DG", "DMS", "DOC", "ECG", "EEG",
    "EMG", "EOG", "EPS", "FID", "GM", "HC", "HD", "IO", "IVOCT", "IVUS", "KER", "KO", "LEN", "LS", "M3D", "MG", "MR",
    "NM", "OAM", "OCT", "OP", "OPM", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "PA", "PLAN", "POS", "PR", "PT", "PX",
    "REG", "RESP", "RF", "RTDOSE", "RTIMAGE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT",
    "RWV", "SEG", "SM", "SMR", "SR", "SRF", "STAIN", "TEXTUREMAP", "TG", "US", "VA", "XA", "XAPROTOCOL", "XC",
))
# fmt: on
"""Defined terms of PS3.3 C.7.3.1.1.1 for everything except plain radiographs, without OT (other)."""


def is_radiograph(modality: str | None, sop_class_uid: str) -> bool:
    """Return whether a DICOM object is of a kind that is analyzed; `modality` is None or empty if unknown."""
    return skip_reason(modality, sop_class_uid) is None


def skip_reason(modality: str | None, sop_class_uid: str) -> SkipReason | None:
    """Return why a DICOM object of this kind is not analyzed; None for a radiograph.

    CR and DX are radiographs in any storage class, including secondary captures of film; the pixels are checked when
    they are decoded.
    """
    if modality in OTHER_MODALITIES:
        return "another modality"
    if sop_class_uid in OTHER_XRAY_CLASSES:
        return "another SOP class"
    if modality in RADIOGRAPH_MODALITIES or sop_class_uid in RADIOGRAPH_CLASSES:
        return None
    return "another SOP class" if sop_class_uid.startswith(STANDARD_ROOT) else PRIVATE_CLASS
