"""Schemas of the JSON replies."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from app.errors import PROBLEM_TYPE
from xray.network.decision import Decision
from xray.network.ood import ScopeReason

NOTICE = "Research use only. Not for diagnosis."


class DicomReply(BaseModel):
    """Attributes of a DICOM file; `spacing` is the distance between rows and between columns, in millimeters."""

    model_config = ConfigDict(from_attributes=True)

    study_uid: str | None
    series_uid: str | None
    instance_uid: str | None
    body_part: str | None
    laterality: str | None
    view: str | None
    spacing: tuple[float, float] | None


class RadiographReply(BaseModel):
    """One radiograph of the study.

    `logit` is before calibration, `weight` its share in the study's probability; width and height are in pixels, as a
    viewer shows it. `dicom` is null for other files.
    """

    name: str
    probability: float
    logit: float
    weight: float
    width: int
    height: int
    dicom: DicomReply | None


class ClassifyReply(BaseModel):
    """`label` is `abnormal` when the study's probability reaches the threshold.

    `decision` is the label too, but `uncertain` where the checkpoint was fitted to say so rather than to err more often
    than at its stated rate. `scope_distance` says how far the farthest radiograph is from what the network can judge,
    as a share of the limit; beyond 1 it is not `in_scope`, for the reason given, and the probability means nothing.
    """

    checkpoint: str
    probability: float
    label: str
    decision: Decision
    threshold: float
    in_scope: bool | None
    scope_distance: float | None
    scope_reason: ScopeReason | None
    radiographs: list[RadiographReply]
    notice: str = NOTICE


class NeighborReply(BaseModel):
    """One gallery entry; `path` is the dataset's, `similarity` the cosine."""

    rank: int
    path: str
    similarity: float
    body_part: str
    label: str
    patient: str
    study: str


class RetrieveReply(BaseModel):
    """Nearest first; fewer than k when the filters leave fewer.

    `abnormal_share` of them is a second opinion beside the probability; None without neighbors.
    """

    checkpoint: str
    abnormal_share: float | None
    neighbors: list[NeighborReply]
    notice: str = NOTICE


class RegionReply(BaseModel):
    """A box where the map is hottest, in pixels as a viewer shows them; `evidence` is 1 at the map's peak."""

    left: int
    top: int
    width: int
    height: int
    evidence: float


class AnalyzeReply(ClassifyReply):
    """The three answers in one, for each radiograph in order.

    `cams` holds PNG data URLs unless `cam=none`. `regions` are where to look if the study is abnormal; a normal one has
    a hottest place too.
    """

    cams: list[str]
    regions: list[list[RegionReply]]
    abnormal_share: float | None
    neighbors: list[NeighborReply]


class GalleryInfo(BaseModel):
    """The gallery that /retrieve searches."""

    dataset: str
    split: str
    only: str
    entries: int
    body_parts: list[str]
    memory_bytes: int
    gpu_memory_bytes: int


class InfoReply(BaseModel):
    """What this replica runs; `error_rate` is that of the decision, where the checkpoint has one."""

    version: str
    checkpoint: str
    architecture: str
    input_size: int
    engine: str
    metrics: dict[str, float]
    thresholds: dict[str, float]
    error_rate: float | None
    gallery: GalleryInfo
    limits: dict[str, int | float]
    notice: str = NOTICE


class ReloadReply(BaseModel):
    """The artifacts in use after a reload."""

    checkpoint: str
    entries: int


class Problem(BaseModel):
    """RFC 9457: `type` names our error class, `detail` says what to change."""

    type: str
    title: str
    status: int
    detail: str


class HealthReply(BaseModel):
    """`live` or `ready`."""

    status: str


PROBLEM: dict[str, Any] = {PROBLEM_TYPE: {"schema": Problem.model_json_schema()}}
REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The detail says what to change.", "content": PROBLEM},
    "5XX": {"description": "Our fault, not ready, or no answer in time.", "content": PROBLEM},
}
"""Error responses in the OpenAPI description of every endpoint."""
