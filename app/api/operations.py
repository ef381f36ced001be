"""Endpoints for operators: health, information, metrics, and reloading of the artifacts."""

from fastapi import APIRouter, Depends, Response
from fastapi.responses import RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.api.dependencies import HealthDep, MetricsDep, OptionalHospitalDep, PredictorDep, require_administrator
from app.api.parameters import require_known_parameters
from app.api.schemas import REFUSALS, GalleryInfo, HealthReply, InfoReply, ReloadReply
from xray.network.checkpoint import CODE_VERSION

router = APIRouter(responses=REFUSALS, dependencies=[Depends(require_known_parameters)])


@router.get("/", include_in_schema=False)
async def documentation() -> RedirectResponse:
    """Redirect a browser that opens the service's root path to the documentation of the endpoints."""
    return RedirectResponse("docs")


@router.head("/", include_in_schema=False)
async def present() -> Response:
    """Answer operators' monitors that send HEAD to the root path to check that the service responds."""
    return Response()


@router.get("/health", include_in_schema=False)
@router.get("/health/live")
async def live(health: HealthDep) -> HealthReply:
    """Answer liveness probes: 200 while the engine makes progress; 503 when only a restart helps."""
    health.require_live()
    return HealthReply(status="live")


@router.get("/health/ready")
async def ready(health: HealthDep, hospital: OptionalHospitalDep) -> HealthReply:
    """Answer readiness probes: 200 if engine, canary, queue and job worker are healthy; 503 otherwise."""
    health.require_ready()
    if hospital is not None:
        hospital.require_working()
    return HealthReply(status="ready")


@router.get("/info")
async def info(predictor: PredictorDep) -> InfoReply:
    """Describe to callers and operators the checkpoint, engine and gallery of this replica, and its limits."""
    model, gallery = predictor.bundle.predictor, predictor.bundle.gallery
    manifest = model.manifest
    limits = {"max_upload_mib", "max_pixels", "max_files", "max_neighbors", "max_pending", "deadline_seconds"}
    return InfoReply(
        version=CODE_VERSION,
        checkpoint=manifest.id,
        architecture=manifest.architecture,
        input_size=manifest.preprocess.size,
        engine=model.engine.name,
        metrics=manifest.metrics,
        thresholds=manifest.thresholds,
        error_rate=manifest.uncertainty.error_rate if manifest.uncertainty else None,
        training_data=manifest.training_data.name,
        adapted_on=manifest.adapted_on.name if manifest.adapted_on else None,
        tells_limbs=model.limb_classifier is not None,
        tells_familiar=model.space is not None,
        gallery=GalleryInfo(
            dataset=gallery.manifest.dataset,
            split=gallery.manifest.split,
            only=gallery.manifest.only,
            entries=len(gallery.entries),
            body_parts=list(gallery.body_parts),
            memory_bytes=gallery.memory_bytes,
            gpu_memory_bytes=gallery.gpu_memory_bytes,
        ),
        limits=predictor.settings.model_dump(include=limits),
    )


@router.get("/metrics", response_class=Response)
async def show_metrics(metrics: MetricsDep, hospital: OptionalHospitalDep) -> Response:
    """Show an operator's Prometheus the metrics in its text format."""
    if hospital is not None:
        metrics.update_job_gauges(await hospital.counts())
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.post("/admin/reload", dependencies=[Depends(require_administrator)])
async def reload(predictor: PredictorDep) -> ReloadReply:
    """Load checkpoint and gallery again for an administrator; the old ones serve until the new ones are verified."""
    bundle = await predictor.reload()
    return ReloadReply(checkpoint=bundle.predictor.manifest.id, entries=len(bundle.gallery.entries))
