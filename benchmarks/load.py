"""Callers of a service in, what became of their requests out: some who wait for their answers, and some who do not."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np

TIMEOUT_SECONDS = 120


@dataclass
class Outcome:
    """What a load came to.

    Attributes:
        seconds: from the first request to the last answer.
        latencies: seconds of each request that was answered with 200.
        refused: how many got 429, each of which said when to come back.
        failed: how many got anything else.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Seconds within which that share of the answers came."""
        return float(np.quantile(self.latencies, share)) if self.latencies else float("nan")


async def closed_loop(address: str, bodies: Sequence[bytes], clients: int, seconds: float) -> Outcome:
    """As many callers as `clients`, each sending its next request when the last is answered, or when told to."""
    outcome, images = Outcome(), itertools.cycle(bodies)
    async with _client(address, clients) as client:
        started = time.perf_counter()

        async def call_until_over() -> None:
            while time.perf_counter() - started < seconds:
                await asyncio.sleep(await _call(client, images, outcome))

        await asyncio.gather(*(call_until_over() for _ in range(clients)))
        outcome.seconds = time.perf_counter() - started
    return outcome


async def open_loop(address: str, bodies: Sequence[bytes], rate: float, seconds: float) -> Outcome:
    """Requests at random times, `rate` a second on average, whether or not the earlier ones are answered (Poisson)."""
    outcome, images = Outcome(), itertools.cycle(bodies)
    arrivals = np.random.default_rng(0).exponential(1 / rate, int(rate * seconds)).cumsum()
    async with _client(address, 1000) as client:
        started = time.perf_counter()

        async def call_at(arrival: float) -> None:
            await asyncio.sleep(arrival - (time.perf_counter() - started))
            await _call(client, images, outcome)

        await asyncio.gather(*(call_at(arrival) for arrival in arrivals))
        outcome.seconds = time.perf_counter() - started
    return outcome


def _client(address: str, connections: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(base_url=address, timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False)


async def _call(client: httpx.AsyncClient, images: Iterator[bytes], outcome: Outcome) -> float:
    """Send one request, and return the seconds that the service asks this caller to stay away."""
    started = time.perf_counter()
    reply = await client.post("/classify", files={"file": ("image.png", next(images))})
    if reply.status_code == httpx.codes.OK:
        outcome.latencies.append(time.perf_counter() - started)
    elif reply.status_code == httpx.codes.TOO_MANY_REQUESTS and int(reply.headers["Retry-After"]) >= 1:
        outcome.refused += 1
        return float(reply.headers["Retry-After"])
    else:
        outcome.failed += 1
    return 0.0
