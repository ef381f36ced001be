"""The finding of a study as a Secondary Capture Image, which every viewer shows at once."""

from highdicom.sc import SCImage
from pydicom import Dataset

from pacs.results.capture.capture_layout import draw
from pacs.results.codes import SOURCE_IMAGE
from pacs.results.result import ALGORITHM, MANUFACTURER, NOTICE, StudyFinding
from pacs.results.uids import instance_uid, series_uid

SERIES_NUMBER = 9101
"""Behind those of the detector's own series."""
SIDES = ("L", "R")
LOSSY, LOSSLESS = "01", "00"
"""Lossy Image Compression: what has once lost something remains so, whatever is made of it."""


def secondary_capture(finding: StudyFinding) -> Dataset:
    """One RGB image in the study of its radiographs: their overlays, the probabilities and the notice, burned in.

    It has no pixel spacing: the radiographs are scaled, each by a factor of its own. Its patient is added when it is
    written (`pacs.results.dicom_file`).
    """
    capture = SCImage(
        pixel_array=draw(finding),
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
    capture.PatientOrientation = []  # highdicom asks for one, but several radiographs have none in common
    _describe(capture, finding)
    _reference(capture, finding)
    return capture


def _describe(capture: Dataset, finding: StudyFinding) -> None:
    """How it came about, and what all radiographs have in common."""
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
    """Which images it was made of."""
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = SOURCE_IMAGE[:3]
    capture.SourceImageSequence = []
    for radiograph in finding.radiographs:
        source = Dataset()
        source.ReferencedSOPClassUID = radiograph.source.sop_class_uid
        source.ReferencedSOPInstanceUID = radiograph.source.instance_uid
        source.PurposeOfReferenceCodeSequence = [purpose]
        capture.SourceImageSequence.append(source)
