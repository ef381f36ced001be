"""The object graph of a running replica, wired in one place."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from app.hospital.gateway import Hospital, load_hospital
from app.inference.admission import Admission
from app.inference.batcher import Batcher
from app.inference.clock import ProcessClock
from app.inference.decoding import Decoder
from app.inference.model_bundle import ModelBundle, load_bundle
from app.inference.prediction_cache import PredictionCache
from app.inference.predictor_service import PredictorService
from app.runtime.health import ReplicaHealth
from app.runtime.metrics import Metrics
from app.settings import Settings
from pacs.results.rendering.worker_pool import ResultPool
from xray.engines.registry import choose_device

GPU_BATCH = 64
"""Radiographs per forward pass on a GPU, which needs large batches for its full throughput."""


@dataclass(frozen=True)
class Replica:
    """Everything a running replica holds.

    Attributes:
        results: the child processes that render and read results for archives.
        hospital: None if the settings name no database of jobs.
    """

    settings: Settings
    predictor: PredictorService
    health: ReplicaHealth
    metrics: Metrics
    results: ResultPool
    hospital: Hospital | None = None


def load_replica(settings: Settings) -> Replica:
    """Load and verify the artifacts, then assemble the replica.

    Raises:
        ArtifactError: a file is missing or damaged, or gallery and checkpoint do not belong together.
        InputError: the device is not available.
        PacsError: the database of jobs or the archives that the settings name cannot be loaded.
    """
    if choose_device(settings.device).type == "cuda" and "max_batch" not in settings.model_fields_set:
        settings = settings.model_copy(update={"max_batch": GPU_BATCH})
    # NumPy's BLAS threads spin for 25 ms after each matrix product, on cores that the engine needs.
    threadpool_limits(limits=1, user_api="blas")
    return assemble(settings, load_bundle(settings), load_hospital(settings))


def assemble(settings: Settings, bundle: ModelBundle, hospital: Hospital | None = None) -> Replica:
    """Assemble a replica: join the artifacts to batcher, workers, admission and metrics, without starting any."""
    clock, metrics = ProcessClock(), Metrics()

    def on_batch(size: int, seconds: float) -> None:
        admission.latency.observe(size, seconds)
        metrics.batch_size.observe(size)
        metrics.forward_seconds.observe(seconds)

    batcher = Batcher(settings.max_batch, on_batch, clock)
    admission = Admission(settings, queued=lambda: batcher.queued)
    workers = ThreadPoolExecutor(settings.decode_threads, "decode")
    decoder = Decoder(settings, workers)
    cache = PredictionCache(settings.result_cache_bytes, decoder, batcher, workers)
    health = ReplicaHealth(settings, batcher, admission)
    metrics.add_gauge("osteon_pending_requests", "Requests in the service.", lambda: len(admission.in_flight))
    metrics.add_gauge("osteon_pending_radiographs", "Radiographs not yet predicted.", lambda: admission.radiographs)
    metrics.add_gauge("osteon_pending_bytes", "Bytes of all request bodies.", lambda: admission.size)
    metrics.add_gauge(
        "osteon_queue_age_seconds", "Seconds that the oldest queued radiograph waits.", lambda: batcher.oldest_seconds
    )
    metrics.add_gauge("osteon_canary_age_seconds", "Seconds since the last good canary.", lambda: health.canary_age)
    metrics.add_gauge("osteon_kept_bytes", "Bytes of the predictions in the cache.", lambda: cache.size)
    predictor = PredictorService(
        settings,
        bundle,
        batcher,
        workers,
        decoder,
        cache,
        admission,
        clock,
        on_prediction=lambda source: metrics.answers.labels(source).inc(),
        on_bundle=metrics.set_artifacts,
    )
    predictor.use(bundle)
    results = ResultPool(settings.decode_seconds, settings.max_pixels)
    return Replica(settings, predictor, health, metrics, results, hospital)
