"""Puts a service under load: with a closed loop of callers that wait for replies, and an open loop that does not wait.

The load generator shares the cores with the service. It uses aiohttp, which needs a fifth of httpx's CPU time.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx
import numpy as np

TIMEOUT_SECONDS = 120
"""Timeout of one request, in seconds; longer than any wait that the service admits."""
MAX_CONNECTIONS = 1000
"""Maximum number of concurrent requests in the open loop."""


@dataclass
class LoadResult:
    """The result of one load on a service, from a closed or an open loop.

    Attributes:
        seconds: seconds from the first request to the last reply.
        latencies: seconds of each request that was answered with 200.
        refused: number of requests that got 429 with `Retry-After`.
        failed: number of requests that got any other status.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0

    @property
    def rate(self) -> float:
        """Replies per second under the load."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Return the seconds within which a share of the replies came under the load."""
        return float(np.quantile(self.latencies, share)) if self.latencies else float("nan")


@dataclass(frozen=True)
class EncodedRequest:
    """A request of a load, encoded in advance, because encoding is not measured."""

    address: str
    content: bytes
    headers: dict[str, str]


def encode_request(address: str, **request: Any) -> EncodedRequest:
    """Encode a POST request for a load; `request` is `files=` or `json=`, as for httpx."""
    encoded = httpx.Request("POST", address, **request)
    return EncodedRequest(address, encoded.read(), {"Content-Type": encoded.headers["Content-Type"]})


async def closed_loop(requests: Sequence[EncodedRequest], clients: int, seconds: float) -> LoadResult:
    """Run a closed loop of `clients` callers; each sends its next request after the reply, or after `Retry-After`."""
    outcome = LoadResult()
    turn = itertools.cycle(requests)
    async with _client(clients) as client:
        started = time.perf_counter()

        async def call_until_over() -> None:
            while (left := started + seconds - time.perf_counter()) > 0:
                pause = await _call(client, turn, outcome)
                await asyncio.sleep(min(pause, left))

        await asyncio.gather(*(call_until_over() for _ in range(clients)))
        outcome.seconds = time.perf_counter() - started
    return outcome


async def open_loop(requests: Sequence[EncodedRequest], rate: float, seconds: float) -> LoadResult:
    """Run an open loop of requests at random times (Poisson), `rate` per second, without waiting for the replies."""
    outcome = LoadResult()
    turn = itertools.cycle(requests)
    arrivals = np.random.default_rng(0).exponential(1 / rate, int(rate * seconds)).cumsum()
    async with _client(MAX_CONNECTIONS) as client:
        started = time.perf_counter()

        async def call_at(arrival: float) -> None:
            await asyncio.sleep(arrival - (time.perf_counter() - started))
            await _call(client, turn, outcome)

        await asyncio.gather(*(call_at(arrival) for arrival in arrivals))
        outcome.seconds = time.perf_counter() - started
    return outcome


def _client(connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections), timeout=aiohttp.ClientTimeout(TIMEOUT_SECONDS)
    )


async def _call(client: aiohttp.ClientSession, turn: Iterator[EncodedRequest], outcome: LoadResult) -> float:
    """Send one request; return the seconds that the service tells this caller to wait."""
    request = next(turn)
    started = time.perf_counter()
    async with client.post(request.address, data=request.content, headers=request.headers) as reply:
        await reply.read()
    if reply.status == httpx.codes.OK:
        outcome.latencies.append(time.perf_counter() - started)
    elif reply.status == httpx.codes.TOO_MANY_REQUESTS and int(reply.headers["Retry-After"]) >= 1:
        outcome.refused += 1
        return float(reply.headers["Retry-After"])
    else:
        outcome.failed += 1
    return 0.0
