"""The endpoints for those who run a replica: its health, what it is, its metrics, and the exchange of its artifacts."""

from fastapi import APIRouter, Depends, Response
from fastapi.responses import RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.api.dependencies import AnyHospitalDep, MetricsDep, ServiceDep, VitalsDep, administrator
from app.api.parameters import require_known_parameters
from app.api.schemas import REFUSALS, GalleryInfo, HealthReply, InfoReply, ReloadReply
from xray.network.checkpoint import CODE_VERSION

router = APIRouter(responses=REFUSALS, dependencies=[Depends(require_known_parameters)])


@router.get("/", include_in_schema=False)
async def documentation() -> RedirectResponse:
    """A browser that opens the address is shown what is served."""
    return RedirectResponse("docs")


@router.head("/", include_in_schema=False)
async def present() -> Response:
    """A monitor that asks for the head of the address learns that something answers."""
    return Response()


@router.get("/health", include_in_schema=False)
@router.get("/health/live")
async def live(vitals: VitalsDep) -> HealthReply:
    """Whether the engine gives signs of life; where it does not, only a new process will help."""
    vitals.require_live()
    return HealthReply(status="live")


@router.get("/health/ready")
async def ready(vitals: VitalsDep, hospital: AnyHospitalDep) -> HealthReply:
    """Whether radiographs are answered, rightly and in time: engine, canary, queue and the worker of jobs are well."""
    vitals.require_ready()
    if hospital is not None:
        hospital.require_working()
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
        thresholds=manifest.thresholds,
        error_rate=manifest.uncertainty.error_rate if manifest.uncertainty else None,
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
async def show_metrics(metrics: MetricsDep, hospital: AnyHospitalDep) -> Response:
    """Counts and durations for Prometheus."""
    if hospital is not None:
        metrics.show_jobs(await hospital.counts())
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.post("/admin/reload", dependencies=[Depends(administrator)])
async def reload(service: ServiceDep) -> ReloadReply:
    """Read checkpoint and gallery from their folders again; the old pair answers until the new one has been proven."""
    generation = await service.reload()
    return ReloadReply(checkpoint=generation.predictor.manifest.id, entries=len(generation.gallery.entries))
