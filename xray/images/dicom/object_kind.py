"""Which DICOM objects are radiographs, decided by SOP class and modality together.

Many sites write DR, RG, OT or nothing as the modality of images that a CR or DX detector made.
"""

from typing import Literal

LeftAlone = Literal["another modality", "another SOP class", "a private SOP class"]
"""Why an object is not analyzed."""

PRIVATE_CLASS: LeftAlone = "a private SOP class"

MODALITIES = ("CR", "DX")
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
"""Of breasts and teeth, whatever the modality says."""
STANDARD_ROOT = "1.2.840.10008."
# fmt: off
OTHER_MODALITIES = frozenset((
    "ANN", "AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CFM", "CT", "CTPROTOCOL", "DG", "DMS", "DOC", "ECG", "EEG",
    "EMG", "EOG", "EPS", "FID", "GM", "HC", "HD", "IO", "IVOCT", "IVUS", "KER", "KO", "LEN", "LS", "M3D", "MG", "MR",
    "NM", "OAM", "OCT", "OP", "OPM", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "PA", "PLAN", "POS", "PR", "PT", "PX",
    "REG", "RESP", "RF", "RTDOSE", "RTIMAGE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT",
    "RWV", "SEG", "SM", "SMR", "SR", "SRF", "STAIN", "TEXTUREMAP", "TG", "US", "VA", "XA", "XAPROTOCOL", "XC",
))
# fmt: on
"""Defined terms of PS3.3 C.7.3.1.1.1 that name something other than a plain radiograph. OT is not among them."""


def is_radiograph(modality: str | None, sop_class_uid: str) -> bool:
    """Whether to analyze an object; `modality` is None or empty where nothing is known of it."""
    return left_alone(modality, sop_class_uid) is None


def left_alone(modality: str | None, sop_class_uid: str) -> LeftAlone | None:
    """Why an object is not analyzed; None for a radiograph.

    CR and DX count whatever storage class they come in, secondary captures of film among them; the pixels are checked
    when they are decoded.
    """
    if modality in OTHER_MODALITIES:
        return "another modality"
    if sop_class_uid in OTHER_XRAY_CLASSES:
        return "another SOP class"
    if modality in MODALITIES or sop_class_uid in RADIOGRAPH_CLASSES:
        return None
    return "another SOP class" if sop_class_uid.startswith(STANDARD_ROOT) else PRIVATE_CLASS
