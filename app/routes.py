"""The endpoints; each turns one `StudyPrediction` into its reply."""

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.dependencies import AnswerDep, AnsweredStudy, ServiceDep, WantedDep, administrator
from app.errors import PROBLEM_TYPE
from app.schemas import (
    AnalyzeReply,
    ClassifyReply,
    GalleryInfo,
    HealthReply,
    InfoReply,
    NeighborReply,
    Problem,
    RadiographReply,
    ReloadReply,
    RetrieveReply,
)
from app.service import Service
from xray.cam import Style, render
from xray.checkpoint import CODE_VERSION
from xray.gallery import Neighbor, Wanted
from xray.png import encode_png
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
        "content": {"multipart/form-data": FORM, "image/png": IMAGE, "image/jpeg": IMAGE},
    }
}
DEFAULT_ALPHA = 0.5

AlphaQuery = Annotated[float, Query(ge=0, le=1, allow_inf_nan=False, description="Opacity of the heat at its peak.")]
StyleQuery = Annotated[Style, Query(description="`map` is gray, 255 at the peak.")]

PROBLEM: dict[str, Any] = {PROBLEM_TYPE: {"schema": Problem.model_json_schema()}}
REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The detail says what to change.", "content": PROBLEM},
    "5XX": {"description": "Our fault, not ready, or no answer in time.", "content": PROBLEM},
}

router = APIRouter(responses=REFUSALS)


@router.post("/classify", openapi_extra=UPLOAD)
async def classify(answer: AnswerDep, service: ServiceDep) -> ClassifyReply:
    """The probability that the study is abnormal, and that of each radiograph."""
    async with answer() as study:
        return ClassifyReply(**_classification(study))


@router.post("/cam", openapi_extra=UPLOAD, response_class=Response, responses={200: {"content": {"image/png": IMAGE}}})
async def cam(
    answer: AnswerDep, service: ServiceDep, style: StyleQuery = "overlay", alpha: AlphaQuery = DEFAULT_ALPHA
) -> Response:
    """Where the evidence lies in one radiograph, as a PNG of its width and height."""
    async with answer(max_files=1) as study:
        with study.stages.measure("encode"):
            png = await service.off_loop(_draw, study.prediction.radiographs[0], style, alpha)
        headers = {"X-Probability": f"{study.prediction.probability:.6f}", "X-Checkpoint": study.checkpoint}
        return Response(png, media_type="image/png", headers=headers)


@router.post("/retrieve", openapi_extra=UPLOAD)
async def retrieve(wanted: WantedDep, answer: AnswerDep, service: ServiceDep) -> RetrieveReply:
    """The gallery's radiographs nearest to the study."""
    async with answer() as study:
        neighbors = await _neighbors(study, wanted, service)
        return RetrieveReply(checkpoint=study.checkpoint, neighbors=neighbors)


@router.post("/analyze", openapi_extra=UPLOAD)
async def analyze(
    wanted: WantedDep,
    answer: AnswerDep,
    service: ServiceDep,
    cam: Annotated[Literal["overlay", "none"], Query(description="`none` leaves the pictures out.")] = "overlay",
    alpha: AlphaQuery = DEFAULT_ALPHA,
) -> AnalyzeReply:
    """All three answers from one pass."""
    async with answer() as study:
        shown = study.prediction.radiographs if cam == "overlay" else ()
        with study.stages.measure("encode"):
            pngs = [await service.off_loop(_draw, prediction, "overlay", alpha) for prediction in shown]
        return AnalyzeReply(
            **_classification(study),
            cams=[f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in pngs],
            neighbors=await _neighbors(study, wanted, service),
        )


@router.get("/health/live")
async def live(service: ServiceDep) -> HealthReply:
    """Whether the engine gives signs of life; where it does not, only a new process will help."""
    service.vitals.require_live()
    return HealthReply(status="live")


@router.get("/health/ready")
async def ready(service: ServiceDep) -> HealthReply:
    """Whether radiographs are answered, rightly and in time: engine, canary and queue are well."""
    service.vitals.require_ready()
    return HealthReply(status="ready")


@router.get("/info")
async def info(service: ServiceDep) -> InfoReply:
    """What this replica runs, and its limits."""
    predictor, gallery = service.generation.predictor, service.generation.gallery
    manifest = predictor.manifest
    limits = {"max_upload_mib", "max_pixels", "max_files", "max_neighbors", "max_pending", "deadline_seconds"}
    return InfoReply(
        version=CODE_VERSION,
        checkpoint=manifest.id,
        architecture=manifest.architecture,
        input_size=manifest.preprocess.size,
        engine=predictor.engine.name,
        metrics=manifest.metrics,
        gallery=GalleryInfo(
            dataset=gallery.manifest.dataset,
            split=gallery.manifest.split,
            only=gallery.manifest.only,
            entries=len(gallery.entries),
            body_parts=list(gallery.body_parts),
            memory_bytes=gallery.memory_bytes,
            gpu_memory_bytes=gallery.gpu_memory_bytes,
        ),
        limits=service.settings.model_dump(include=limits),
    )


@router.get("/metrics", response_class=Response)
async def metrics(service: ServiceDep) -> Response:
    """Counts and durations for Prometheus."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.post("/admin/reload", dependencies=[Depends(administrator)])
async def reload(service: ServiceDep) -> ReloadReply:
    """Read checkpoint and gallery from their folders again; the old pair answers until the new one has been proven."""
    generation = await service.reload()
    return ReloadReply(checkpoint=generation.predictor.manifest.id, entries=len(generation.gallery.entries))


def _classification(study: AnsweredStudy) -> dict[str, Any]:
    prediction = study.prediction
    return {
        "checkpoint": study.checkpoint,
        "probability": prediction.probability,
        "label": prediction.label,
        "threshold": prediction.threshold,
        "radiographs": [
            RadiographReply(
                name=upload.name,
                probability=each.probability,
                logit=each.logit,
                width=each.prepared.radiograph.width,
                height=each.prepared.radiograph.height,
            )
            for upload, each in zip(study.uploads, prediction.radiographs, strict=True)
        ],
    }


async def _neighbors(study: AnsweredStudy, wanted: Wanted, service: Service) -> list[NeighborReply]:
    search = study.generation.gallery.search
    with study.stages.measure("search"):
        found: list[Neighbor] = await service.off_loop(search, study.prediction.embedding_D, wanted)
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
        for neighbor in found
    ]


def _draw(prediction: Prediction, style: Style, alpha: float) -> bytes:
    return encode_png(render(prediction.cam(), prediction.prepared.radiograph, style, alpha))
