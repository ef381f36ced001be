"""How fast batches were and how much is inside in, whether one more request would be answered in time out.

A request is refused at the door, before its body is read, when the radiographs inside would keep it waiting for longer
than it may wait: an answer that comes too late would only take the machine's time from those that do not.
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
"""What an older batch counts against the next newer one."""
SHORTEST_PAUSE_SECONDS = 1
LONGEST_PAUSE_SECONDS = 10
SENDERS_SHARE = 0.5
"""Of the bytes inside that may be bodies of studies on their way; the rest is for callers who wait for an answer."""
SENDERS_PATIENCE_SECONDS = 10.0
"""For which the sender of a study waits for a place before it is told to come back."""
MIN_QUEUED_BATCHES = 2
"""A wait of that many full batches is never too long, however slow the machine: it takes one to keep it busy."""


@dataclass
class BatchLatencyModel:
    """Seconds of a batch of n radiographs as a line, slope * n + offset, fitted to the latest batches.

    The fields are the sums of a weighted least-squares fit.
    """

    weight: float = 0.0
    n: float = 0.0
    seconds: float = 0.0
    n_n: float = 0.0
    n_seconds: float = 0.0

    def observe(self, n: int, seconds: float) -> None:
        self.weight = DECAY * self.weight + 1
        self.n = DECAY * self.n + n
        self.seconds = DECAY * self.seconds + seconds
        self.n_n = DECAY * self.n_n + n * n
        self.n_seconds = DECAY * self.n_seconds + n * seconds

    def restart(self, batch_seconds: Mapping[int, float]) -> None:
        """Forget what another network took, and begin with what this one's first batches took, by their size."""
        self.weight = self.n = self.seconds = self.n_n = self.n_seconds = 0.0
        for n, seconds in batch_seconds.items():
            self.observe(n, seconds)

    def batch_seconds(self, n: float) -> float:
        """Predicted time of one batch; 0 before the first was observed."""
        if not self.weight:
            return 0.0
        spread = self.n_n - self.n * self.n / self.weight
        slope = (self.n_seconds - self.n * self.seconds / self.weight) / spread if spread > 1e-9 else math.inf
        proportional = self.seconds / self.n
        # Batches of one size tell nothing about the offset, and noise can tip the line: then time goes with the number.
        slope = min(max(slope, 0.0), proportional)
        return max(0.0, (self.seconds - slope * self.n) / self.weight) + slope * n

    def wait_seconds(self, radiographs: int, max_batch: int) -> float:
        """Predicted time until all of that many are through, in batches as full as can be."""
        full, rest = divmod(radiographs, max_batch)
        return full * self.batch_seconds(max_batch) + (self.batch_seconds(rest) if rest else 0.0)


@dataclass
class Place:
    """What one admitted request holds.

    Attributes:
        radiographs: that it has yet to hand to the engine; 1 until they have been counted.
        size: bytes of its body.
    """

    radiographs: int
    size: int


@dataclass
class Admission:
    """The door; touched on the event loop only, but for the pace, which the engine's thread keeps.

    Attributes:
        queued: how many radiographs are with the engine, whoever queued them: requests, jobs or the canary.
        expected: when those who were sent away may come back (monotonic); a heap.
    """

    settings: Settings
    pace: BatchLatencyModel = field(default_factory=BatchLatencyModel)
    queued: Callable[[], int] = lambda: 0
    inside: list[Place] = field(default_factory=list)
    expected: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        share = int(SENDERS_SHARE * self.settings.max_inflight_bytes)
        self._senders = asyncio.Semaphore(max(1, share // self.settings.max_upload_bytes))

    @property
    def radiographs(self) -> int:
        """That the engine has yet to answer."""
        return sum(place.radiographs for place in self.inside) + self.queued()

    @property
    def size(self) -> int:
        """Bytes of the bodies inside."""
        return sum(place.size for place in self.inside)

    def require_time(self, deadline: float) -> None:
        """Be sure that one more radiograph would not wait too long.

        Args:
            deadline: seconds until the answer is of no use.

        Raises:
            OverloadedError: it would; says when to come back.
        """
        largest = self.settings.max_batch
        welcome = max(self.settings.max_wait_seconds, MIN_QUEUED_BATCHES * self.pace.batch_seconds(largest))
        patience = min(deadline, welcome)
        waiting = self.radiographs
        wait = self.pace.wait_seconds(waiting + 1, largest)
        if waiting and wait > patience:
            raise OverloadedError(
                f"{waiting} radiographs wait, {wait:.1f} s of work; send the request again after the pause.",
                self._pause(patience),
                "wait",
            )

    @contextmanager
    def admit(self, size: int, deadline: float) -> Iterator[Place]:
        """Hold a place for the length of the block.

        Args:
            size: bytes of the body, as far as they are known.
            deadline: seconds until the answer is of no use.

        Raises:
            OverloadedError: no place or no memory is free, or the wait would be too long; says when to come back.
        """
        self.require_time(deadline)
        with self._placed(Place(1, size)) as place:
            yield place

    @asynccontextmanager
    async def admit_sender(self) -> AsyncIterator[None]:
        """Hold a place for the sender of a study, who waits for no answer of the network; wait for one if need be.

        The study's radiographs count once its job hands them to the engine.

        Raises:
            OverloadedError: no place became free, or no memory is.
        """
        try:
            await asyncio.wait_for(self._senders.acquire(), SENDERS_PATIENCE_SECONDS)
        except TimeoutError as error:
            raise OverloadedError(
                "As many studies are being received as there is room for; send this one again after the pause.",
                LONGEST_PAUSE_SECONDS,
                "senders",
            ) from error
        try:
            # One instance at a time is in memory, whatever the body's length.
            with self._placed(Place(0, self.settings.max_upload_bytes)):
                yield
        finally:
            self._senders.release()

    @contextmanager
    def _placed(self, place: Place) -> Iterator[Place]:
        self._require_room(place.size)
        self.inside.append(place)
        try:
            yield place
        finally:
            # By identity: two requests may hold equal places.
            self.inside = [each for each in self.inside if each is not place]

    def _pause(self, patience: float) -> int:
        """Whole seconds until there is room, behind all others who were sent away, lest they return as one."""
        now = time.monotonic()
        while self.expected and self.expected[0] <= now:
            heapq.heappop(self.expected)
        crowd = self.radiographs + len(self.expected) + 1
        seconds = math.ceil(self.pace.wait_seconds(crowd, self.settings.max_batch) - patience)
        seconds = min(max(seconds, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        heapq.heappush(self.expected, now + seconds)
        return seconds

    def _require_room(self, size: int) -> None:
        inside, settings = len(self.inside), self.settings
        full, heavy = inside >= settings.max_pending, self.size + size > settings.max_inflight_bytes
        if full or heavy:
            raise OverloadedError(
                f"{inside} requests of {self.size // MEBIBYTE} MiB are inside; send this one again after the pause.",
                SHORTEST_PAUSE_SECONDS,
                "requests" if full else "bytes",
            )
