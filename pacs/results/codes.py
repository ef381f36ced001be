"""Coded concepts of the results, from SNOMED CT and DICOM, or from a private scheme if those have none."""

from pydicom.sr.coding import Code

from pacs.results.uids import coding_scheme_uid
from xray.network.decision import Decision

OSTEON = "99OSTEON"
"""Designator of the private coding scheme; the prefix `99` marks it as private (PS3.3 8.2)."""

NORMALITY = Code("121402", "DCM", "Normality")
THRESHOLD = Code("122411", "DCM", "Threshold Value")
COMMENT = Code("121106", "DCM", "Comment")
SELECTED_REGION = Code("111099", "DCM", "Selected region")
ILLUSTRATION = Code("125201", "DCM", "Illustration of Finding")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
PLAIN_RADIOGRAPHY = Code("168537006", "SCT", "Plain radiography")
NO_UNITS = Code("1", "UCUM", "no units")
PROBABILITY = Code("PROBABILITY", OSTEON, "Probability of abnormality, from 0 to 1")
LABEL = Code("LABEL", OSTEON, "Label at the threshold")
WEIGHT = Code("WEIGHT", OSTEON, "Share of the radiograph in that of the study, from 0 to 1")
FAMILIARITY = Code("FAMILIARITY", OSTEON, "Likeness to the training data; unfamiliar below 1")
EVIDENCE = Code("EVIDENCE", OSTEON, "Greatest evidence in the region; 1 at the radiograph's peak")

DECISIONS: dict[Decision, Code] = {
    "normal": Code("17621005", "SCT", "Normal"),
    "abnormal": Code("263654008", "SCT", "Abnormal"),
    "uncertain": Code("371934000", "SCT", "Normality Undetermined"),
}
"""Codes of the decisions (CID 222, Normality Codes); a label is one of the first two."""

SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    OSTEON: f"urn:oid:{coding_scheme_uid()}",
}
"""URIs of the coding schemes in FHIR."""
