"""Renders the finding of a study as a Secondary Capture image, which every viewer can display."""

from highdicom.sc import SCImage
from pydicom import Dataset

from pacs.results.capture.capture_layout import draw_capture
from pacs.results.codes import SOURCE_IMAGE
from pacs.results.result import ALGORITHM, MANUFACTURER, NOTICE, StudyFinding
from pacs.results.uids import instance_uid, series_uid

SERIES_NUMBER = 9101
"""Series number; high, so that viewers list the series after the detector's."""
SIDES = ("L", "R")
"""Allowed values of Laterality (PS3.3 C.7.3.1)."""
LOSSY, LOSSLESS = "01", "00"
"""Values of Lossy Image Compression; an image that is derived from a lossy one counts as lossy."""


def secondary_capture(finding: StudyFinding) -> Dataset:
    """Return the Secondary Capture: an RGB image with overlays, probabilities and the notice burned in.

    It has no pixel spacing, because each radiograph is scaled by its own factor. `pacs.results.dicom_file` adds the
    patient attributes.
    """
    capture = SCImage(
        pixel_array=draw_capture(finding),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=finding.study_uid,
        series_instance_uid=series_uid("capture", finding.seed),
        series_number=SERIES_NUMBER,
        series_description=f"{ALGORITHM}: {NOTICE}",
        sop_instance_uid=instance_uid("capture", finding.seed),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=ALGORITHM,
        patient_orientation=("L", "F"),
    )
    capture.PatientOrientation = []  # highdicom requires one, but the radiographs may differ
    _describe(capture, finding)
    _reference(capture, finding)
    return capture


def _describe(capture: Dataset, finding: StudyFinding) -> None:
    """Set the attributes that describe the derivation, and the attributes that all radiographs share."""
    sources = [radiograph.source for radiograph in finding.radiographs]
    capture.SoftwareVersions = [finding.version, finding.checkpoint]
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.BurnedInAnnotation = "YES"
    capture.DerivationDescription = "Heatmaps laid over the radiographs, scaled, side by side. " + NOTICE
    capture.ImageComments = NOTICE
    sides = {source.laterality for source in sources}
    for each in finding.supersedes:
        if each.sop_class_uid == capture.SOPClassUID:
            capture.ImageComments += f". Replaces {each.instance_uid}, because more of the study came."
    side = sides.pop() if len(sides) == 1 else None
    capture.Laterality = side if side in SIDES else None
    parts = {source.body_part for source in sources}
    if len(parts) == 1 and None not in parts:
        capture.BodyPartExamined = parts.pop()
    capture.LossyImageCompression = LOSSY if any(source.lossy for source in sources) else LOSSLESS


def _reference(capture: Dataset, finding: StudyFinding) -> None:
    """Set the references to the source images."""
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = SOURCE_IMAGE[:3]
    capture.SourceImageSequence = []
    for radiograph in finding.radiographs:
        source = Dataset()
        source.ReferencedSOPClassUID = radiograph.source.sop_class_uid
        source.ReferencedSOPInstanceUID = radiograph.source.instance_uid
        source.PurposeOfReferenceCodeSequence = [purpose]
        capture.SourceImageSequence.append(source)
