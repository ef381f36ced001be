"""Schemas of the endpoints' JSON replies."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from app.errors import PROBLEM_TYPE
from xray.network.decision import Decision
from xray.network.ood import ScopeReason

NOTICE = "Research use only. Not for diagnosis."


class DicomReply(BaseModel):
    """A DICOM file in a reply. `spacing` is the distance between rows and between columns, in millimeters."""

    model_config = ConfigDict(from_attributes=True)

    study_uid: str | None
    series_uid: str | None
    instance_uid: str | None
    body_part: str | None
    laterality: str | None
    view: str | None
    spacing: tuple[float, float] | None


class RadiographReply(BaseModel):
    """One radiograph of the study in a reply.

    `logit` is the network's output before calibration. `weight` is the radiograph's share in the study's probability.
    `familiarity` is its likeness to the training data; below 1 it is unfamiliar.
    `width` and `height` are in pixels, as a viewer shows the image. `dicom` is null for files that are not DICOM.
    """

    name: str
    probability: float
    logit: float
    weight: float
    familiarity: float | None
    width: int
    height: int
    dicom: DicomReply | None


class ClassifyReply(BaseModel):
    """The reply with the classification of one study.

    `label` is `abnormal` if `probability` is at least `threshold`. `decision` is the label, or `uncertain`, and then
    `decision_reason` says why: the checkpoint would be wrong more often than the `error_rate` that `/info` shows, or a
    radiograph is not `familiar`, which means that it is a limb unlike the training data. `familiarity` is that of the
    least familiar radiograph, and 1 is the limit; both are null if the checkpoint has no such limit.

    `scope_distance` compares the radiograph that is least like a limb with the limit: above 1 the study is not
    `in_scope`, `scope_reason` says why, and the probability means nothing. All three are null if the check is off.
    """

    checkpoint: str
    probability: float
    label: str
    decision: Decision
    decision_reason: str | None
    threshold: float
    in_scope: bool | None
    scope_distance: float | None
    scope_reason: ScopeReason | None
    familiar: bool | None
    familiarity: float | None
    radiographs: list[RadiographReply]
    notice: str = NOTICE


class NeighborReply(BaseModel):
    """One gallery entry in a reply. `path` is relative to its dataset; `similarity` is a cosine, from -1 to 1."""

    rank: int
    path: str
    similarity: float
    body_part: str
    label: str
    patient: str
    study: str


class RetrieveReply(BaseModel):
    """The reply with the gallery's most similar radiographs, nearest first; fewer than `k` if the filters leave fewer.

    `abnormal_share` is the share of abnormal radiographs among them, from 0 to 1: a second opinion beside the
    probability. It is null if there are no neighbors.
    """

    checkpoint: str
    abnormal_share: float | None
    neighbors: list[NeighborReply]
    notice: str = NOTICE


class RegionReply(BaseModel):
    """A box in a reply around a hot region, in pixels as a viewer shows them. `evidence` is 1 at the heatmap's peak."""

    left: int
    top: int
    width: int
    height: int
    evidence: float


class AnalyzeReply(ClassifyReply):
    """Reply with classification, heatmaps and neighbors of a study; `cams` and `regions` follow the radiographs' order.

    `cams` holds overlays as PNG data URLs; it is empty with `cam=none`. `regions` show where to look if the study is
    abnormal; a normal study has hottest regions too, and they mean nothing.
    """

    cams: list[str]
    regions: list[list[RegionReply]]
    abnormal_share: float | None
    neighbors: list[NeighborReply]


class GalleryInfo(BaseModel):
    """The gallery that `/retrieve` searches, in the reply of `/info`. Memory is in bytes."""

    dataset: str
    split: str
    only: str
    entries: int
    body_parts: list[str]
    memory_bytes: int
    gpu_memory_bytes: int


class InfoReply(BaseModel):
    """What this replica runs.

    `error_rate` is the maximum share of wrong decisions in either class; null if there is none. `training_data`, and
    what the checkpoint was `adapted_on`, are familiar to it. It `tells_limbs` from other images, which are out of
    scope, and `tells_familiar` limbs from unfamiliar ones, if it has the limits for that.
    """

    version: str
    checkpoint: str
    architecture: str
    input_size: int
    engine: str
    metrics: dict[str, float]
    thresholds: dict[str, float]
    error_rate: float | None
    training_data: str
    adapted_on: str | None
    tells_limbs: bool
    tells_familiar: bool
    gallery: GalleryInfo
    limits: dict[str, int | float]
    notice: str = NOTICE


class ReloadReply(BaseModel):
    """The reply to a reload, with the artifacts in use after it."""

    checkpoint: str
    entries: int


class Problem(BaseModel):
    """A reply with a problem document (RFC 9457). `type` names the kind of error; `detail` says what to change."""

    type: str
    title: str
    status: int
    detail: str


class HealthReply(BaseModel):
    """The reply to a health check; `status` is `live` or `ready`."""

    status: str


PROBLEM: dict[str, Any] = {PROBLEM_TYPE: {"schema": Problem.model_json_schema()}}
REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request cannot be answered; `detail` says what to change.", "content": PROBLEM},
    "5XX": {"description": "The service failed, is not ready, or did not answer in time.", "content": PROBLEM},
}
"""Error responses in the OpenAPI description of every endpoint."""
