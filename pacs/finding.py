"""What the service found in one DICOM study, as values: what results are made of.

Nothing here is the patient's; results take their patient from the header of the radiograph that they speak of.
"""

from dataclasses import dataclass, field

from pydicom import Dataset

from xray.cam import Region
from xray.judgement import Decision, Label
from xray.radiograph import PixelArray

NOTICE = "AI result - not for diagnostic use"
"""Burned into every picture and written into every report."""
ALGORITHM = "Osteon"
MANUFACTURER = "Osteon"


@dataclass(frozen=True)
class RadiographFinding:
    """One radiograph of the study.

    Attributes:
        header: the DICOM data set that it came in, without its pixels.
        overlay_HW3: uint8 RGB, the heatmap on the radiograph, upright and with bone bright.
        regions: where the map is hottest, in pixels of the overlay, the strongest first.
        weight: its share in the study's probability.
    """

    header: Dataset
    overlay_HW3: PixelArray
    regions: tuple[Region, ...]
    probability: float
    weight: float


@dataclass(frozen=True)
class Reference:
    """A DICOM object of the same study."""

    sop_class_uid: str
    instance_uid: str
    series_uid: str


@dataclass(frozen=True)
class StudyFinding:
    """The study: its radiographs, and what follows from them together.

    Attributes:
        probability: of abnormality, calibrated, from 0 to 1.
        threshold: at or above which the label is `abnormal`.
        checkpoint: id of the network that said so.
        version: of this software.
        left_out: SOP Instance UIDs of radiographs of the study that could not be judged, and why.
        seed: what the UIDs of the results are made of; secret, as whoever has it can work them out.
        supersedes: the results that these take the place of, because more of the study came.
    """

    study_uid: str
    probability: float
    label: Label
    decision: Decision
    threshold: float
    checkpoint: str
    version: str
    radiographs: tuple[RadiographFinding, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    seed: bytes = field(default=b"", repr=False)
    supersedes: tuple[Reference, ...] = ()
