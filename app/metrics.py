"""Counts and durations for Prometheus, in a registry of each application's own."""

import time
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.admission import Admission

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
UNROUTED = "unrouted"
"""Stands for every path that we do not serve, so that a scanner cannot fill the registry."""


class Metrics:
    """What /metrics tells; the door is asked whenever it is read."""

    def __init__(self, admission: Admission) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("osteon_requests", "Requests answered.", ("endpoint", "status"), registry=self.registry)
        self.seconds = Histogram(
            "osteon_request_seconds",
            "Time from the request's head to its answer.",
            ("endpoint",),
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "osteon_batch_size", "Radiographs per forward pass.", buckets=BATCH_BUCKETS, registry=self.registry
        )
        self.forward_seconds = Histogram(
            "osteon_forward_seconds", "Time of one forward pass of a batch.", registry=self.registry
        )
        gauges = {
            "osteon_pending_requests": ("Requests in the service.", lambda: len(admission.inside)),
            "osteon_pending_radiographs": ("Radiographs of these requests.", lambda: admission.radiographs),
            "osteon_pending_bytes": ("Bytes of their bodies.", lambda: admission.size),
        }
        for name, (meaning, value) in gauges.items():
            Gauge(name, meaning, registry=self.registry).set_function(value)


class MeasuredRequests:
    """ASGI middleware that counts and times every request by its route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()

        def measure(status: int) -> None:
            endpoint = getattr(scope.get("route"), "path", UNROUTED)
            self.metrics.requests.labels(endpoint, status).inc()
            self.metrics.seconds.labels(endpoint).observe(time.perf_counter() - started)

        async def measured_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                measure(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, measured_send)
        except Exception:
            measure(HTTPStatus.INTERNAL_SERVER_ERROR)  # the outermost layer answers, out of our sight
            raise
