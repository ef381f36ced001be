"""Decides whether the service accepts one more request, from recent batch times and the work in flight.

A request is refused before its body is read if the radiographs in flight would delay it for too long: work on a reply
that comes too late would delay requests that can still be answered in time.
"""

import asyncio
import heapq
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from app.errors import OverloadedError
from app.settings import MEBIBYTE, Settings

DECAY = 0.95
"""Weight of each batch time relative to the next newer one, so that old times fade out."""
MIN_RETRY_SECONDS = 1
MAX_RETRY_SECONDS = 10
"""Bounds of `Retry-After`, in seconds."""
SENDERS_SHARE = 0.5
"""Share of the bytes in flight that studies being received may use; the rest is for callers that wait for a reply."""
SENDER_WAIT_SECONDS = 10.0
"""Time that the sender of a study waits for a permit before it gets 429, in seconds."""
MIN_QUEUED_BATCHES = 2
"""Full batches that may always wait, even on a slow machine: with fewer, the engine would idle between batches."""


@dataclass
class BatchLatencyModel:
    """Predicts the waits by which admission decides: a batch of n radiographs takes slope * n + offset seconds.

    The line is fitted to recent batches. The fields are the sums of a weighted least-squares fit.
    """

    weight: float = 0.0
    n: float = 0.0
    seconds: float = 0.0
    n_n: float = 0.0
    n_seconds: float = 0.0

    def observe(self, n: int, seconds: float) -> None:
        """Add the time of one batch to the fit from which admission predicts waits."""
        self.weight = DECAY * self.weight + 1
        self.n = DECAY * self.n + n
        self.seconds = DECAY * self.seconds + seconds
        self.n_n = DECAY * self.n_n + n * n
        self.n_seconds = DECAY * self.n_seconds + n * seconds

    def restart(self, batch_seconds: Mapping[int, float]) -> None:
        """Restart admission's fit: replace the previous network's times by the new one's, in seconds by batch size."""
        self.weight = self.n = self.seconds = self.n_n = self.n_seconds = 0.0
        for n, seconds in batch_seconds.items():
            self.observe(n, seconds)

    def batch_seconds(self, n: float) -> float:
        """Predict the time of one batch by admission's fit, in seconds; 0 before the first observation."""
        if not self.weight:
            return 0.0
        spread = self.n_n - self.n * self.n / self.weight
        slope = (self.n_seconds - self.n * self.seconds / self.weight) / spread if spread > 1e-9 else math.inf
        proportional = self.seconds / self.n
        # Batches of one size do not determine the offset, and noise can tilt the line: then time is proportional to n.
        slope = min(max(slope, 0.0), proportional)
        return max(0.0, (self.seconds - slope * self.n) / self.weight) + slope * n

    def wait_seconds(self, radiographs: int, max_batch: int) -> float:
        """Predict by admission's fit the seconds to finish a number of radiographs, in batches as full as possible."""
        full, rest = divmod(radiographs, max_batch)
        return full * self.batch_seconds(max_batch) + (self.batch_seconds(rest) if rest else 0.0)


@dataclass
class Permit:
    """The right of one admitted request to use memory and the engine.

    Attributes:
        radiographs: radiographs that the request has not submitted to the engine yet; 1 until they are counted.
        size: bytes of the request's body.
    """

    radiographs: int
    size: int


@dataclass
class Admission:
    """Admits requests by permits. Use it on the event loop only; only `latency` is updated by the engine's thread.

    Attributes:
        queued: returns the number of radiographs that the engine has not finished, of requests, jobs and the canary.
        in_flight: the permits of all requests in the service.
        retry_times: times at which the refused callers are expected to retry, by the monotonic clock; a heap.
    """

    settings: Settings
    latency: BatchLatencyModel = field(default_factory=BatchLatencyModel)
    queued: Callable[[], int] = lambda: 0
    in_flight: list[Permit] = field(default_factory=list)
    retry_times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        share = int(SENDERS_SHARE * self.settings.max_inflight_bytes)
        self._senders = asyncio.Semaphore(max(1, share // self.settings.max_upload_bytes))

    @property
    def radiographs(self) -> int:
        """Number of radiographs that the engine has not finished, by which admission predicts the wait."""
        return sum(permit.radiographs for permit in self.in_flight) + self.queued()

    @property
    def size(self) -> int:
        """Total size of the bodies of the admitted requests in flight, in bytes."""
        return sum(permit.size for permit in self.in_flight)

    def require_time(self, deadline: float) -> None:
        """Require for admission that one more radiograph would not wait too long.

        Args:
            deadline: seconds after which the answer is useless.

        Raises:
            OverloadedError: it would wait too long; the error says when to retry.
        """
        max_batch = self.settings.max_batch
        always_allowed = MIN_QUEUED_BATCHES * self.latency.batch_seconds(max_batch)
        max_wait = min(deadline, max(self.settings.max_wait_seconds, always_allowed))
        waiting = self.radiographs
        wait = self.latency.wait_seconds(waiting + 1, max_batch)
        if waiting and wait > max_wait:
            raise OverloadedError(
                f"{waiting} radiographs wait, {wait:.1f} s of work; send the request again after the pause.",
                self._schedule_retry(max_wait),
                "wait",
            )

    @contextmanager
    def admit(self, size: int, deadline: float) -> Iterator[Permit]:
        """Admit a request: hold its permit for the duration of the block.

        Args:
            size: bytes of the body, as far as known.
            deadline: seconds after which the answer is useless.

        Raises:
            OverloadedError: too many requests or bytes are in flight, or the wait would be too long; the error says
                when to retry.
        """
        self.require_time(deadline)
        with self._hold(Permit(1, size)) as permit:
            yield permit

    @asynccontextmanager
    async def admit_sender(self) -> AsyncIterator[None]:
        """Admit the sender of a study, which does not wait for the network: hold a permit, after a wait if necessary.

        The radiographs of the study are counted when its job submits them to the engine.

        Raises:
            OverloadedError: too many studies are being received, or too many bytes are in flight.
        """
        try:
            await asyncio.wait_for(self._senders.acquire(), SENDER_WAIT_SECONDS)
        except TimeoutError as error:
            raise OverloadedError(
                "Too many studies are being received at the moment; send this one again after the pause.",
                MAX_RETRY_SECONDS,
                "senders",
            ) from error
        try:
            # Only one instance is in memory at a time, however long the body is.
            with self._hold(Permit(0, self.settings.max_upload_bytes)):
                yield
        finally:
            self._senders.release()

    @contextmanager
    def _hold(self, permit: Permit) -> Iterator[Permit]:
        self._require_room(permit.size)
        self.in_flight.append(permit)
        try:
            yield permit
        finally:
            # Compare by identity, because permits of two requests may be equal.
            self.in_flight = [each for each in self.in_flight if each is not permit]

    def _schedule_retry(self, max_wait: float) -> int:
        """Return the seconds until a retry, later than for callers refused before, so that not all retry at once."""
        now = time.monotonic()
        while self.retry_times and self.retry_times[0] <= now:
            heapq.heappop(self.retry_times)
        ahead = self.radiographs + len(self.retry_times) + 1
        seconds = math.ceil(self.latency.wait_seconds(ahead, self.settings.max_batch) - max_wait)
        seconds = min(max(seconds, MIN_RETRY_SECONDS), MAX_RETRY_SECONDS)
        heapq.heappush(self.retry_times, now + seconds)
        return seconds

    def _require_room(self, size: int) -> None:
        requests = len(self.in_flight)
        too_many = requests >= self.settings.max_pending
        too_large = self.size + size > self.settings.max_inflight_bytes
        if too_many or too_large:
            raise OverloadedError(
                f"{requests} requests of {self.size // MEBIBYTE} MiB are in flight; send this one again after the "
                "pause.",
                MIN_RETRY_SECONDS,
                "requests" if too_many else "bytes",
            )
