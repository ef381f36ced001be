"""Everything that is made of one finding: the picture and the report for an archive, and the FHIR report."""

import json

from pydicom import Dataset

from pacs.instance import Instance
from pacs.results.capture.secondary_capture import secondary_capture
from pacs.results.dicom_file import file_of
from pacs.results.fingerprint import proof_of
from pacs.results.report.fhir import diagnostic_report
from pacs.results.report.structured_report import structured_report
from pacs.results.result import CopiedElement, Results, StudyFinding


def results_of(finding: StudyFinding) -> Results:
    """The study's patient is that of its first radiograph."""
    patient_and_study = finding.radiographs[0].source.patient_and_study
    capture = secondary_capture(finding)
    report = structured_report(finding, capture)
    files = _file(capture, (*patient_and_study, *_compression(finding))), _file(report, patient_and_study)
    proofs = tuple(proof_of(each.data) for each in files)
    return Results(files, proofs, json.dumps(diagnostic_report(finding)))


def _file(result: Dataset, copied: tuple[CopiedElement, ...]) -> Instance:
    data = file_of(result, copied)
    return Instance(str(result.SeriesInstanceUID), str(result.SOPInstanceUID), str(result.SOPClassUID), data)


def _compression(finding: StudyFinding) -> tuple[CopiedElement, ...]:
    """How the first of the radiographs that have lost something lost it."""
    sources = [radiograph.source for radiograph in finding.radiographs]
    return next((source.compression for source in sources if source.lossy), ())
