"""The findings of a DICOM study, from which its results are rendered.

The service sends them to a worker process, so they consist of numbers, texts and bytes only.
"""

from dataclasses import dataclass, field

from pacs.instance import Instance
from pacs.results.picture import Picture
from xray.images.patient_identity import Patient
from xray.network.cam import Region
from xray.network.decision import Decision
from xray.types import Label

NOTICE = "AI result - not for diagnostic use"
"""Burned into every capture and written into every report."""
ALGORITHM = "Osteon"
MANUFACTURER = "Osteon"
MORE_LEFT_OUT = "The study has further radiographs that were not judged."


@dataclass(frozen=True)
class CopiedElement:
    """Part of a finding: an attribute of its radiograph that the results repeat.

    Attributes:
        tag: group and element as one number.
        encoded: tag, VR, length and value in Explicit VR Little Endian. A text keeps the bytes of the source, because
            decoding and encoding would change a name that is not valid in its character set.
    """

    tag: int
    encoded: bytes = field(repr=False)  # patient data must not appear in logs


@dataclass(frozen=True)
class Source:
    """Part of a finding: the attributes in its radiograph's header that results take from it, of limited size.

    Attributes:
        laterality, view, body_part: code strings; None if the header has none.
        lossy: whether the pixels were ever compressed with loss.
        patient: the patient, in the form in which patients are compared.
        patient_and_study: attributes of the patient and the study, and their character set.
        compression: ratio and method of the lossy compression.
        not_copied: keywords of attributes that were left out because they are too large, too deeply nested or damaged.
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
    """The finding of one radiograph of a DICOM study, for rendering the results.

    Attributes:
        regions: regions with the most evidence, in pixels of the radiograph, strongest first.
        probability: of abnormality, calibrated, from 0 to 1.
        weight: share of the radiograph in the study's probability, from 0 to 1.
        familiarity: likeness to the network's training data, whose limit is 1; None if unknown.
    """

    source: Source
    picture: Picture
    regions: tuple[Region, ...]
    probability: float
    weight: float
    familiarity: float | None = None


@dataclass(frozen=True)
class Reference:
    """Part of a study's finding: the UIDs of a DICOM object of the same study, such as an earlier result."""

    sop_class_uid: str
    instance_uid: str
    series_uid: str


@dataclass(frozen=True)
class StudyFinding:
    """The finding of a DICOM study and of its radiographs, for rendering the results.

    Attributes:
        probability: of abnormality, calibrated, from 0 to 1.
        threshold: the label is `abnormal` if the probability is at least this.
        checkpoint: ID of the network.
        version: version of this software.
        left_out: SOP Instance UID and reason of each radiograph that could not be analyzed.
        more_left_out: whether the study has further radiographs that were not examined.
        decision_reason: why the decision is `uncertain`, as a sentence; None for other decisions.
        familiarity: smallest familiarity of the radiographs; None if unknown.
        seed: secret from which the UIDs of the results are derived.
        supersedes: earlier results that these replace, because more radiographs arrived.
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
    decision_reason: str | None = None
    familiarity: float | None = None
    seed: bytes = field(default=b"", repr=False)
    supersedes: tuple[Reference, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether the study's finding covers every radiograph, so that none was left out."""
        return not self.left_out and not self.more_left_out

    @property
    def not_judged(self) -> tuple[str, ...]:
        """One sentence for each radiograph that the study's finding leaves out."""
        each = tuple(f"Not judged: {uid}. {reason}" for uid, reason in self.left_out)
        return (*each, MORE_LEFT_OUT) if self.more_left_out else each

    @property
    def remarks(self) -> tuple[str, ...]:
        """The reason of an uncertain decision, and one sentence for each radiograph that was left out."""
        return (*((self.decision_reason,) if self.decision_reason else ()), *self.not_judged)


@dataclass(frozen=True)
class Results:
    """The results that were rendered from the finding of a study.

    Attributes:
        files: the Secondary Capture and the structured report.
        fingerprints: one for each file; see `pacs.results.fingerprint`.
        fhir: the DiagnosticReport, as JSON.
    """

    files: tuple[Instance, ...]
    fingerprints: tuple[bytes, ...]
    fhir: str
