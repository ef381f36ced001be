"""Prometheus metrics of the service; each application has its own registry."""

import math
import time
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import SAFE_HEADERS
from app.inference.model_bundle import ModelBundle
from app.inference.timing import Stages
from pacs.queue.job import QueueCounts

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
"""Upper bounds of batch sizes, up to the default on a GPU."""
STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""Upper bounds of durations, in seconds."""
UNROUTED = "unrouted"
"""Label for all unknown paths, so that a scanner cannot create unlimited time series."""

RAW_SAFE_HEADERS = [(name.lower().encode(), value.encode()) for name, value in SAFE_HEADERS.items()]

UNEXPECTED = "unexpected"
"""Label for all errors without a problem type."""


class Metrics:
    """The Prometheus metrics behind `/metrics`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("osteon_requests", "Requests answered.", ("endpoint", "status"), registry=self.registry)
        self.seconds = self._histogram("osteon_request_seconds", "Seconds from request to reply.", ("endpoint",))
        self.stage_seconds = self._histogram("osteon_stage_seconds", "Seconds per request and stage.", ("stage",))
        self.forward_seconds = self._histogram("osteon_forward_seconds", "Seconds of one forward pass.")
        self.batch_size = Histogram(
            "osteon_batch_size", "Radiographs per forward pass.", buckets=BATCH_BUCKETS, registry=self.registry
        )
        self.refusals = Counter(
            "osteon_refusals",
            "Requests that failed, by kind of problem or by the limit that was reached.",
            ("reason",),
            registry=self.registry,
        )
        self.answers = Counter(
            "osteon_answers",
            "Radiographs answered, by source of the prediction: pass, shared, kept.",
            ("source",),
            registry=self.registry,
        )
        self.jobs = Gauge("osteon_jobs", "Jobs in the queue, by state.", ("state",), registry=self.registry)
        self.left_alone = Gauge(
            "osteon_left_alone_instances",
            "Instances accepted but not analyzed, by reason, over all replicas.",
            ("reason",),
            registry=self.registry,
        )
        self.refused_instances = Gauge(
            "osteon_refused_instances",
            "Radiographs that were not added to their study, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.overdue_jobs = Gauge(
            "osteon_jobs_overdue_seconds", "Seconds that the oldest due job waits.", registry=self.registry
        )
        self.overdue_jobs.set(math.nan)
        self.artifacts = Info("osteon_artifacts", "The artifacts in use.", registry=self.registry)

    def add_gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a gauge to the metrics that calls `value` whenever they are read."""
        Gauge(name, meaning, registry=self.registry).set_function(value)

    def set_artifacts(self, bundle: ModelBundle) -> None:
        """Set the labels of the metric that names the artifacts in use."""
        manifest, gallery = bundle.predictor.manifest, bundle.gallery.manifest
        self.artifacts.info(
            {
                "checkpoint": manifest.id,
                "architecture": manifest.architecture,
                "engine": bundle.predictor.engine.name,
                "gallery": f"{gallery.dataset}/{gallery.split}",
                "entries": str(gallery.count),
            }
        )

    def update_job_gauges(self, counts: QueueCounts | None) -> None:
        """Replace the gauges of the job queue; `counts` is None if the database does not respond."""
        self.jobs.clear()
        self.left_alone.clear()
        self.refused_instances.clear()
        self.overdue_jobs.set(math.nan if counts is None else counts.overdue.total_seconds())
        if counts is None:
            return
        for state, count in counts.states.items():
            self.jobs.labels(state).set(count)
        for reason, count in counts.left_alone.items():
            self.left_alone.labels(reason).set(count)
        for reason, count in counts.refusals.items():
            self.refused_instances.labels(reason).set(count)

    def _histogram(self, name: str, meaning: str, labels: tuple[str, ...] = ()) -> Histogram:
        return Histogram(name, meaning, labels, buckets=STAGE_BUCKETS, registry=self.registry)


class MetricsMiddleware:
    """Updates the metrics: counts and times every request by route, and adds a Server-Timing header to each reply."""

    def __init__(self, app: ASGIApp, metrics: Metrics, draining: Callable[[], bool]) -> None:
        self.app, self.metrics, self.draining = app, metrics, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, stages = time.perf_counter(), Stages()
        state = scope.setdefault("state", {})
        state["stages"] = stages

        def measure(status: int) -> None:
            endpoint = getattr(scope.get("route"), "path", UNROUTED)
            self.metrics.requests.labels(endpoint, status).inc()
            self.metrics.seconds.labels(endpoint).observe(time.perf_counter() - started)
            if status >= HTTPStatus.BAD_REQUEST:
                self.metrics.refusals.labels(state.get("reason", UNEXPECTED)).inc()
            for stage, seconds in stages.seconds.items():
                self.metrics.stage_seconds.labels(stage).observe(seconds)

        async def measured_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                measure(message["status"])
                message["headers"] = [*message["headers"], *self._headers(stages, time.perf_counter() - started)]
            await send(message)

        try:
            await self.app(scope, receive, measured_send)
        except Exception:
            measure(
                HTTPStatus.INTERNAL_SERVER_ERROR
            )  # the outermost layer sends the reply, which bypasses this middleware
            raise

    def _headers(self, stages: Stages, seconds: float) -> list[tuple[bytes, bytes]]:
        headers = [(b"server-timing", stages.header(seconds).encode()), *RAW_SAFE_HEADERS]
        return [*headers, (b"connection", b"close")] if self.draining() else headers
