"""Callers of a service in, what became of their requests out: some who wait for their answers, and some who do not.

The callers run on the cores that they measure. They ask through aiohttp, which takes a fifth of httpx's time.
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
MANY = 1000
"""Connections of callers who do not wait for each other."""


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


@dataclass(frozen=True)
class Question:
    """One request, encoded once: its making is not what we measure."""

    address: str
    content: bytes
    headers: dict[str, str]


def question(address: str, **request: Any) -> Question:
    """A POST as `httpx` encodes `files=` or `json=`."""
    encoded = httpx.Request("POST", address, **request)
    return Question(address, encoded.read(), {"Content-Type": encoded.headers["Content-Type"]})


async def closed_loop(questions: Sequence[Question], clients: int, seconds: float) -> Outcome:
    """As many callers as `clients`, each sending its next request when the last is answered, or when told to."""
    outcome, turn = Outcome(), itertools.cycle(questions)
    async with _client(clients) as client:
        started = time.perf_counter()

        async def call_until_over() -> None:
            while (left := started + seconds - time.perf_counter()) > 0:
                pause = await _call(client, turn, outcome)
                await asyncio.sleep(min(pause, left))

        await asyncio.gather(*(call_until_over() for _ in range(clients)))
        outcome.seconds = time.perf_counter() - started
    return outcome


async def open_loop(questions: Sequence[Question], rate: float, seconds: float) -> Outcome:
    """Requests at random times, `rate` a second on average, whether or not the earlier ones are answered (Poisson)."""
    outcome, turn = Outcome(), itertools.cycle(questions)
    arrivals = np.random.default_rng(0).exponential(1 / rate, int(rate * seconds)).cumsum()
    async with _client(MANY) as client:
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


async def _call(client: aiohttp.ClientSession, turn: Iterator[Question], outcome: Outcome) -> float:
    """Send one request, and return the seconds that the service asks this caller to stay away."""
    asked, started = next(turn), time.perf_counter()
    async with client.post(asked.address, data=asked.content, headers=asked.headers) as reply:
        await reply.read()
    if reply.status == httpx.codes.OK:
        outcome.latencies.append(time.perf_counter() - started)
    elif reply.status == httpx.codes.TOO_MANY_REQUESTS and int(reply.headers["Retry-After"]) >= 1:
        outcome.refused += 1
        return float(reply.headers["Retry-After"])
    else:
        outcome.failed += 1
    return 0.0
