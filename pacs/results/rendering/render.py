"""Renders all results of a finding: the Secondary Capture, the structured report and the FHIR report."""

import json

from pydicom import Dataset

from pacs.instance import Instance
from pacs.results.capture.secondary_capture import secondary_capture
from pacs.results.dicom_file import encode_file
from pacs.results.fingerprint import compute_fingerprint
from pacs.results.report.fhir import diagnostic_report
from pacs.results.report.structured_report import structured_report
from pacs.results.result import CopiedElement, Results, StudyFinding


def render_results(finding: StudyFinding) -> Results:
    """Render all results of a study's finding; the patient attributes are those of the first radiograph."""
    patient_and_study = finding.radiographs[0].source.patient_and_study
    capture = secondary_capture(finding)
    report = structured_report(finding, capture)
    files = _file(capture, (*patient_and_study, *_compression(finding))), _file(report, patient_and_study)
    fingerprints = tuple(compute_fingerprint(each.data) for each in files)
    return Results(files, fingerprints, json.dumps(diagnostic_report(finding)))


def _file(result: Dataset, copied: tuple[CopiedElement, ...]) -> Instance:
    data = encode_file(result, copied)
    return Instance(str(result.SeriesInstanceUID), str(result.SOPInstanceUID), str(result.SOPClassUID), data)


def _compression(finding: StudyFinding) -> tuple[CopiedElement, ...]:
    """Return compression ratio and method of the first radiograph that was compressed with loss."""
    sources = [radiograph.source for radiograph in finding.radiographs]
    return next((source.compression for source in sources if source.lossy), ())
