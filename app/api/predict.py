"""The endpoints that analyze uploaded radiographs; each turns one `StudyPrediction` into its reply."""

import base64
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response

from app.api.dependencies import (
    NeighborQueryDep,
    PredictedStudy,
    PredictorDep,
    PredictStudyDep,
    ThresholdDep,
    require_capacity,
)
from app.api.parameters import require_known_parameters
from app.api.schemas import (
    REFUSALS,
    AnalyzeReply,
    ClassifyReply,
    DicomReply,
    NeighborReply,
    RadiographReply,
    RegionReply,
    RetrieveReply,
)
from app.inference.predictor_service import PredictorService
from xray.gallery.gallery import Neighbor, NeighborQuery, abnormal_share
from xray.images.png_encoder import encode_png
from xray.images.radiograph import DicomFacts
from xray.network.cam import Style, find_regions, render
from xray.predictor import Prediction

IMAGE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
FORM: dict[str, Any] = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    }
}
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Parts named `file`, one for each view of the study, or the image itself.",
        "content": {"multipart/form-data": FORM, "image/png": IMAGE, "image/jpeg": IMAGE, "application/dicom": IMAGE},
    }
}
DEFAULT_ALPHA = 0.5
"""Default opacity of the heatmap at its peak, from 0 to 1."""

AlphaQuery = Annotated[float, Query(ge=0, le=1, allow_inf_nan=False, description="Opacity of the heatmap at its peak.")]
StyleQuery = Annotated[
    Style,
    Query(
        description="`overlay` and `heatmap` are in color; `map` is gray, with 255 at the peak; `boxes` frames the "
        "hottest regions."
    ),
]


router = APIRouter(responses=REFUSALS, dependencies=[Depends(require_capacity), Depends(require_known_parameters)])


@router.post("/classify", openapi_extra=UPLOAD)
async def classify(threshold: ThresholdDep, answer: PredictStudyDep) -> ClassifyReply:
    """Estimate the probability that the uploaded study is abnormal, and decide; with the share of each radiograph."""
    async with answer(threshold=threshold) as study:
        return ClassifyReply(**_classification(study))


@router.post("/cam", openapi_extra=UPLOAD, response_class=Response, responses={200: {"content": {"image/png": IMAGE}}})
async def cam(
    answer: PredictStudyDep, predictor: PredictorDep, style: StyleQuery = "overlay", alpha: AlphaQuery = DEFAULT_ALPHA
) -> Response:
    """Draw where the evidence lies in one uploaded radiograph, as a PNG of the radiograph's width and height."""
    async with answer(max_files=1) as study:
        with study.stages.measure("encode"):
            png = await predictor.off_loop(_render_png, study.prediction.radiographs[0], style, alpha)
        headers = {"X-Probability": f"{study.prediction.probability:.6f}", "X-Checkpoint": study.checkpoint}
        return Response(png, media_type="image/png", headers=headers)


@router.post("/retrieve", openapi_extra=UPLOAD)
async def retrieve(query: NeighborQueryDep, answer: PredictStudyDep, predictor: PredictorDep) -> RetrieveReply:
    """Find the radiographs of the gallery that are most similar to the uploaded study."""
    async with answer() as study:
        neighbors = await _neighbors(study, query, predictor)
        return RetrieveReply(
            checkpoint=study.checkpoint,
            abnormal_share=abnormal_share(neighbors),
            neighbors=_to_replies(neighbors),
        )


@router.post("/analyze", openapi_extra=UPLOAD)
async def analyze(
    query: NeighborQueryDep,
    threshold: ThresholdDep,
    answer: PredictStudyDep,
    predictor: PredictorDep,
    cam: Annotated[Literal["overlay", "none"], Query(description="`none` leaves out the overlays.")] = "overlay",
    alpha: AlphaQuery = DEFAULT_ALPHA,
) -> AnalyzeReply:
    """Classify an uploaded study, draw its heatmaps and find similar radiographs, with one forward pass."""
    async with answer(threshold=threshold) as study:
        draw = partial(_draw_evidence, alpha=alpha if cam == "overlay" else None)
        with study.stages.measure("encode"):
            drawn = [await predictor.off_loop(draw, each) for each in study.prediction.radiographs]
        neighbors = await _neighbors(study, query, predictor)
        return AnalyzeReply(
            **_classification(study),
            cams=[url for _, url in drawn if url is not None],
            regions=[boxes for boxes, _ in drawn],
            abnormal_share=abnormal_share(neighbors),
            neighbors=_to_replies(neighbors),
        )


def _classification(study: PredictedStudy) -> dict[str, Any]:
    prediction = study.prediction
    farthest = max(study.scopes, key=lambda scope: scope.distance, default=None)
    return {
        "checkpoint": study.checkpoint,
        "probability": prediction.probability,
        "label": prediction.label,
        "decision": prediction.decision,
        "decision_reason": prediction.decision_reason,
        "threshold": prediction.threshold,
        "in_scope": farthest and farthest.in_scope,
        "scope_distance": farthest and farthest.distance,
        "scope_reason": None if farthest is None or farthest.in_scope else farthest.reason,
        "familiar": prediction.familiar,
        "familiarity": prediction.familiarity,
        "radiographs": [
            RadiographReply(
                name=upload.name,
                probability=each.probability,
                logit=each.logit,
                weight=weight,
                familiarity=each.familiarity,
                width=each.prepared.radiograph.width,
                height=each.prepared.radiograph.height,
                dicom=_dicom(each.prepared.radiograph.dicom),
            )
            for upload, each, weight in zip(study.uploads, prediction.radiographs, prediction.weights, strict=True)
        ],
    }


def _dicom(facts: DicomFacts | None) -> DicomReply | None:
    return None if facts is None else DicomReply.model_validate(facts)


async def _neighbors(study: PredictedStudy, query: NeighborQuery, predictor: PredictorService) -> list[Neighbor]:
    search = study.bundle.gallery.search
    with study.stages.measure("search"):
        found: list[Neighbor] = await predictor.off_loop(search, study.prediction.embedding_D, query)
    return found


def _to_replies(neighbors: Sequence[Neighbor]) -> list[NeighborReply]:
    return [
        NeighborReply(
            rank=neighbor.rank,
            path=neighbor.entry.path,
            similarity=neighbor.similarity,
            body_part=neighbor.entry.body_part,
            label=neighbor.entry.label,
            patient=neighbor.entry.patient,
            study=neighbor.entry.study,
        )
        for neighbor in neighbors
    ]


def _render_png(prediction: Prediction, style: Style, alpha: float) -> bytes:
    return encode_png(render(prediction.cam(), prediction.prepared.radiograph, style, alpha))


def _draw_evidence(prediction: Prediction, alpha: float | None) -> tuple[list[RegionReply], str | None]:
    """Return the hottest regions of a radiograph and its overlay as a data URL; no overlay if `alpha` is None."""
    cam = prediction.cam()
    boxes = [RegionReply(**asdict(region)) for region in find_regions(cam)]
    if alpha is None:
        return boxes, None
    png = encode_png(render(cam, prediction.prepared.radiograph, "overlay", alpha))
    return boxes, f"data:image/png;base64,{base64.b64encode(png).decode()}"
