"""Renders the finding of a study as an unverified structured report (Comprehensive 3D SR, TID 1500)."""

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage

from pacs.results.codes import COMMENT, ILLUSTRATION, OSTEON, PLAIN_RADIOGRAPHY
from pacs.results.patient_attributes import REQUIRED
from pacs.results.report.measurements import measurement_groups
from pacs.results.result import ALGORITHM, MANUFACTURER, NOTICE, Source, StudyFinding
from pacs.results.uids import coding_scheme_uid, device_uid, instance_uid, series_uid

SERIES_NUMBER = 9102
"""Series number; viewers list the series after the capture's."""
DEVICE = Code("121007", "DCM", "Device")
PARTIAL_DESCRIPTION = "Radiographs of the study were not judged; the comments say why."
"""Completion Flag Description: at most 64 characters, as PS3.5 requires."""


def structured_report(finding: StudyFinding, capture: Dataset) -> Dataset:
    """Return a report of the numbers and regions, with references to the radiographs and to the capture.

    It is preliminary and unverified, and complete unless radiographs were left out. `pacs.results.dicom_file` adds the
    patient attributes.
    """
    evidence = [_evidence_of_capture(capture), *(_evidence(each.source) for each in finding.radiographs)]
    report: Dataset = Comprehensive3DSR(
        evidence=evidence,
        content=_content(finding, capture)[0],
        series_instance_uid=series_uid("report", finding.seed),
        series_number=SERIES_NUMBER,
        series_description=f"{ALGORITHM}: {NOTICE}",
        sop_instance_uid=instance_uid("report", finding.seed),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=ALGORITHM,
        is_complete=finding.is_complete,
        is_final=False,
        is_verified=False,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                OSTEON, name="Osteon codes", uid=coding_scheme_uid(), responsible_organization=MANUFACTURER
            )
        ],
    )
    report.SoftwareVersions = [finding.version, finding.checkpoint]
    if not finding.is_complete:
        report.CompletionFlagDescription = PARTIAL_DESCRIPTION
    if finding.supersedes:
        report.PredecessorDocumentsSequence = [_predecessors(finding)]
    return report


def _predecessors(finding: StudyFinding) -> Dataset:
    """Return references to the reports that this one replaces (PS3.3 Table C.17-3)."""
    study = Dataset()
    study.StudyInstanceUID = finding.study_uid
    study.ReferencedSeriesSequence = []
    for each in finding.supersedes:
        if each.sop_class_uid == Comprehensive3DSRStorage:
            instance, series = Dataset(), Dataset()
            instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = each.sop_class_uid, each.instance_uid
            series.SeriesInstanceUID, series.ReferencedSOPSequence = each.series_uid, [instance]
            study.ReferencedSeriesSequence.append(series)
    return study


def _evidence_of_capture(capture: Dataset) -> Dataset:
    return _instance(capture.StudyInstanceUID, capture.SeriesInstanceUID, capture.SOPClassUID, capture.SOPInstanceUID)


def _evidence(source: Source) -> Dataset:
    return _instance(source.study_uid, source.series_uid, source.sop_class_uid, source.instance_uid)


def _instance(study_uid: str, series_uid: str, sop_class_uid: str, instance_uid: str) -> Dataset:
    """Return an instance without patient attributes, which highdicom would reject if they are not valid."""
    instance = Dataset()
    instance.StudyInstanceUID, instance.SeriesInstanceUID = study_uid, series_uid
    instance.SOPClassUID, instance.SOPInstanceUID = sop_class_uid, instance_uid
    for keyword in REQUIRED:
        setattr(instance, keyword, None)
    return instance


def _content(finding: StudyFinding, capture: Dataset) -> MeasurementReport:
    """Return the content tree of TID 1500 with private extensions.

    The notice comes before the measurements. The capture, the reason of an uncertain decision and comments on omitted
    radiographs follow them.
    """
    tree = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(finding)),
        procedure_reported=PLAIN_RADIOGRAPHY,
        imaging_measurements=measurement_groups(finding),
    )
    items = tree[0].ContentSequence
    items.insert(len(items) - 1, _comment(NOTICE))
    items.append(
        ImageContentItem(
            name=CodedConcept.from_code(ILLUSTRATION),
            referenced_sop_class_uid=capture.SOPClassUID,
            referenced_sop_instance_uid=capture.SOPInstanceUID,
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
    )
    items.extend(_comment(sentence) for sentence in finding.remarks)
    return tree


def _observer(finding: StudyFinding) -> ObserverContext:
    return ObserverContext(
        observer_type=CodedConcept.from_code(DEVICE),
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=device_uid(finding.version, finding.checkpoint),
            name=ALGORITHM,
            manufacturer_name=MANUFACTURER,
            model_name=f"{ALGORITHM} {finding.version}",
            serial_number=finding.checkpoint,
        ),
    )


def _comment(text: str) -> TextContentItem:
    return TextContentItem(
        name=CodedConcept.from_code(COMMENT),
        value=text.encode("ascii", "replace").decode(),  # ASCII is part of every character set of DICOM
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
