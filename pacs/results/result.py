"""What the service found in one DICOM study, as values: what results are made of.

They go from the service to the process that writes results, so they hold plain numbers, texts and bytes.
"""

from dataclasses import dataclass, field

from pacs.instance import Instance
from pacs.results.picture import Picture
from xray.images.patient import Patient
from xray.network.cam import Region
from xray.network.decision import Decision
from xray.types import Label

NOTICE = "AI result - not for diagnostic use"
"""Burned into every picture and written into every report."""
ALGORITHM = "Osteon"
MANUFACTURER = "Osteon"
MORE_LEFT_OUT = "The study has further radiographs that were not judged."


@dataclass(frozen=True)
class CopiedElement:
    """An attribute of a radiograph that its results repeat.

    Attributes:
        tag: group and element as one number.
        encoded: tag, VR, length and value in Explicit VR Little Endian. The value of a text is byte for byte the
            source's: decoded and encoded again, a name that does not fit its character set would be another name.
    """

    tag: int
    encoded: bytes = field(repr=False)  # it is the patient's, and no log may show it


@dataclass(frozen=True)
class Source:
    """What results take from a radiograph's header; it is small, whatever the header holds.

    Attributes:
        laterality, view, body_part: code strings; None where the header has none.
        lossy: whether the pixels were once compressed with loss.
        patient: whose it is, as patients are compared.
        patient_and_study: whose it is, of which study, and the character set of both.
        compression: how it was compressed with loss.
        not_copied: keywords of attributes that are too large, too deeply nested or damaged.
    """

    study_uid: str
    series_uid: str
    instance_uid: str
    sop_class_uid: str
    laterality: str | None
    view: str | None
    body_part: str | None
    lossy: bool
    patient: Patient = field(repr=False)
    patient_and_study: tuple[CopiedElement, ...]
    compression: tuple[CopiedElement, ...] = ()
    not_copied: tuple[str, ...] = ()


@dataclass(frozen=True)
class RadiographFinding:
    """One radiograph of the study.

    Attributes:
        regions: where the map is hottest, in pixels of the radiograph, the strongest first.
        weight: its share in the study's probability.
    """

    source: Source
    picture: Picture
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
        more_left_out: whether the study has further radiographs, which nobody looked at.
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
    more_left_out: bool = False
    seed: bytes = field(default=b"", repr=False)
    supersedes: tuple[Reference, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every radiograph of the study was judged."""
        return not self.left_out and not self.more_left_out

    @property
    def not_judged(self) -> tuple[str, ...]:
        """A sentence or two about each radiograph that was left out."""
        each = tuple(f"Not judged: {uid}. {reason}" for uid, reason in self.left_out)
        return (*each, MORE_LEFT_OUT) if self.more_left_out else each


@dataclass(frozen=True)
class Results:
    """What is made of a finding.

    Attributes:
        files: the Secondary Capture and the structured report.
        proofs: of each file the digest that tells it from another one under its UID; see `pacs.results.fingerprint`.
        fhir: the DiagnosticReport, as JSON.
    """

    files: tuple[Instance, ...]
    proofs: tuple[bytes, ...]
    fhir: str
