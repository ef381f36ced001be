"""Builds the measurement groups of a study's report (TID 1501, and TID 1410 for regions).

The first group is the study's, followed by one for each radiograph and one for each region of each radiograph.
"""

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TrackingIdentifier,
)
from pydicom.sr.coding import Code

from pacs.results.codes import (
    DECISIONS,
    EVIDENCE,
    FAMILIARITY,
    LABEL,
    NO_UNITS,
    NORMALITY,
    PROBABILITY,
    SELECTED_REGION,
    THRESHOLD,
    WEIGHT,
)
from pacs.results.result import ALGORITHM, MANUFACTURER, RadiographFinding, StudyFinding
from pacs.results.uids import tracking_uid
from xray.network.cam import Region

DECIMALS = 6
"""Number of decimals in a report, because DICOM limits the text of a number to 16 characters."""

Group = MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations


def measurement_groups(finding: StudyFinding) -> list[Group]:
    """Return all measurement groups of a study's report.

    Regions are in pixels of their radiograph; tracking identifiers are reproducible.
    """
    groups: list[Group] = [_of_study(finding)]
    numbered = list(enumerate(finding.radiographs, 1))
    groups += [_of_radiograph(finding, radiograph, number) for number, radiograph in numbered]
    for number, radiograph in numbered:
        for place, region in enumerate(radiograph.regions, 1):
            tracking = _tracking(finding, radiograph, f"region {place} of radiograph {number}")
            groups.append(_of_region(finding, radiograph, region, tracking))
    return groups


def _of_study(finding: StudyFinding) -> MeasurementsAndQualitativeEvaluations:
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(tracking_uid(finding.seed, "study"), f"{ALGORITHM} study"),
        algorithm_id=_algorithm(finding),
        measurements=[
            _number(PROBABILITY, finding.probability),
            _number(THRESHOLD, finding.threshold),
            *_familiarity(finding),
        ],
        qualitative_evaluations=[
            QualitativeEvaluation(LABEL, DECISIONS[finding.label]),
            QualitativeEvaluation(NORMALITY, DECISIONS[finding.decision]),
        ],
        source_images=[_source(radiograph) for radiograph in finding.radiographs],
    )


def _of_radiograph(
    finding: StudyFinding, radiograph: RadiographFinding, number: int
) -> MeasurementsAndQualitativeEvaluations:
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(finding, radiograph, f"radiograph {number}"),
        algorithm_id=_algorithm(finding),
        measurements=[
            _number(PROBABILITY, radiograph.probability),
            _number(WEIGHT, radiograph.weight),
            *_familiarity(radiograph),
        ],
        source_images=[_source(radiograph)],
    )


def _of_region(
    finding: StudyFinding, radiograph: RadiographFinding, region: Region, tracking: TrackingIdentifier
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """Return the group of a region, with a closed rectangle around its pixels.

    Coordinate 0 is the upper left corner of the first pixel, not its center (PS3.3 C.18.6.1).
    """
    right, bottom = region.left + region.width, region.top + region.height
    corners = [(region.left, region.top), (right, region.top), (right, bottom), (region.left, bottom)]
    source = SourceImageForRegion(radiograph.source.sop_class_uid, radiograph.source.instance_uid)
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        referenced_region=ImageRegion(
            GraphicTypeValues.POLYLINE, np.array([*corners, corners[0]], np.float64), source_image=source
        ),
        finding_type=SELECTED_REGION,
        algorithm_id=_algorithm(finding),
        measurements=[_number(EVIDENCE, region.evidence)],
    )


def _algorithm(finding: StudyFinding) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        ALGORITHM, finding.version, parameters=[f"checkpoint={finding.checkpoint}"], manufacturer=MANUFACTURER
    )


def _tracking(finding: StudyFinding, radiograph: RadiographFinding, name: str) -> TrackingIdentifier:
    subject = f"{radiograph.source.instance_uid} {name}"
    return TrackingIdentifier(tracking_uid(finding.seed, subject), f"{ALGORITHM} {name}")


def _number(name: Code, value: float) -> Measurement:
    return Measurement(name, round(value, DECIMALS), NO_UNITS)


def _familiarity(finding: StudyFinding | RadiographFinding) -> list[Measurement]:
    return [] if finding.familiarity is None else [_number(FAMILIARITY, finding.familiarity)]


def _source(radiograph: RadiographFinding) -> SourceImageForMeasurementGroup:
    return SourceImageForMeasurementGroup(radiograph.source.sop_class_uid, radiograph.source.instance_uid)
