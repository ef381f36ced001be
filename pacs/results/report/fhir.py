"""Renders the finding of a study as a FHIR R4 DiagnosticReport, in types that `json.dumps` accepts.

All resources are contained in the report. It does not name the patient, because it could misspell the name; the
study that it refers to identifies the patient.
"""

from typing import Any

from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage

from pacs.results.codes import DECISIONS, FAMILIARITY, LABEL, NORMALITY, PROBABILITY, SYSTEMS, THRESHOLD, WEIGHT
from pacs.results.result import ALGORITHM, MANUFACTURER, NOTICE, RadiographFinding, StudyFinding
from pacs.results.uids import instance_uid

Json = dict[str, Any]

STATUS = "preliminary"
"""Status of the report and its observations, because no physician has verified them."""
DICOM_UID = "urn:dicom:uid"
REPLACES = "http://hl7.org/fhir/StructureDefinition/diagnosticReport-replaces"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
IMAGING_STUDY = {"system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study"}
RADIOLOGY = {"system": f"{TERMINOLOGY}/v2-0074", "code": "RAD", "display": "Radiology"}
IMAGING = {"system": f"{TERMINOLOGY}/observation-category", "code": "imaging", "display": "Imaging"}


def diagnostic_report(finding: StudyFinding) -> Json:
    """Return the FHIR report. It has no timestamps, so that equal findings have equal reports."""
    observations = _observations(finding)
    uid = instance_uid("report", finding.seed)
    return {
        "resourceType": "DiagnosticReport",
        "contained": [_device(finding), *observations],
        **_replaces(finding),
        "identifier": [_uid_identifier(uid)],
        "status": STATUS,
        "category": [{"coding": [RADIOLOGY]}],
        "code": {"coding": [IMAGING_STUDY], "text": f"{ALGORITHM}: probability of abnormality"},
        "result": [{"reference": f"#{observation['id']}"} for observation in observations],
        "imagingStudy": [_by_uid("ImagingStudy", finding.study_uid)],
        "conclusion": _conclusion(finding),
        "conclusionCode": [_concept(DECISIONS[finding.decision])],
    }


def _replaces(finding: StudyFinding) -> Json:
    """Name the reports that this one replaces, with R4's standard extension."""
    reports = [each for each in finding.supersedes if each.sop_class_uid == Comprehensive3DSRStorage]
    values = [{"url": REPLACES, "valueReference": _by_uid("DiagnosticReport", each.instance_uid)} for each in reports]
    return {"extension": values} if values else {}


def _observations(finding: StudyFinding) -> list[Json]:
    of_study = [_by_uid("ImagingStudy", finding.study_uid)]
    probability = _observation("probability", PROBABILITY, of_study)
    probability |= _number(finding.probability) | {
        "component": [{"code": _concept(THRESHOLD)} | _number(finding.threshold), *_familiarity(finding)]
    }
    label = _observation("label", LABEL, of_study)
    label |= {
        "valueCodeableConcept": _concept(DECISIONS[finding.label]),
        "component": [{"code": _concept(NORMALITY), "valueCodeableConcept": _concept(DECISIONS[finding.decision])}],
    }
    radiographs = [_radiograph(each, number) for number, each in enumerate(finding.radiographs, 1)]
    return [probability, label, *radiographs]


def _radiograph(radiograph: RadiographFinding, number: int) -> Json:
    """Return the observation of a radiograph; R4 refers to an image as a Media identified by its SOP Instance UID."""
    image = [_by_uid("Media", radiograph.source.instance_uid)]
    return (
        _observation(f"radiograph-{number}", PROBABILITY, image)
        | _number(radiograph.probability)
        | {"component": [{"code": _concept(WEIGHT)} | _number(radiograph.weight), *_familiarity(radiograph)]}
    )


def _familiarity(finding: StudyFinding | RadiographFinding) -> list[Json]:
    if finding.familiarity is None:
        return []
    return [{"code": _concept(FAMILIARITY)} | _number(finding.familiarity)]


def _observation(name: str, code: Code, sources: list[Json]) -> Json:
    return {
        "resourceType": "Observation",
        "id": name,
        "status": STATUS,
        "category": [{"coding": [IMAGING]}],
        "code": _concept(code),
        "device": {"reference": "#device"},
        "derivedFrom": sources,
    }


def _device(finding: StudyFinding) -> Json:
    return {
        "resourceType": "Device",
        "id": "device",
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": ALGORITHM, "type": "model-name"}],
        "version": [
            {"type": {"text": "software"}, "value": finding.version},
            {"type": {"text": "checkpoint"}, "value": finding.checkpoint},
        ],
    }


def _conclusion(finding: StudyFinding) -> str:
    sentences = [
        f"{NOTICE}.",
        f"Probability of abnormality {finding.probability:.3f}, threshold {finding.threshold:.3f}.",
        f"Label: {finding.label}. Decision: {finding.decision}.",
        *finding.remarks,
    ]
    return " ".join(sentences)


def _number(value: float) -> Json:
    return {"valueQuantity": {"value": value, "unit": "1", "system": "http://unitsofmeasure.org", "code": "1"}}


def _concept(code: Code) -> Json:
    system = SYSTEMS[code.scheme_designator]
    return {"coding": [{"system": system, "code": code.value, "display": code.meaning}], "text": code.meaning}


def _by_uid(kind: str, uid: str) -> Json:
    return {"type": kind, "identifier": _uid_identifier(uid)}


def _uid_identifier(uid: str) -> Json:
    """Return a DICOM UID as a FHIR identifier."""
    return {"system": DICOM_UID, "value": f"urn:oid:{uid}"}
