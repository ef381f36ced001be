"""Uploads in, a study's prediction out; everything a replica holds, and the exchange of its artifacts."""

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from threadpoolctl import threadpool_limits

from app.admission import Admission, Place
from app.batcher import Batcher
from app.clock import OwnTime
from app.errors import ReloadRefusedError
from app.generation import Generation, load_generation
from app.hospital import Hospital, load_hospital
from app.metrics import Metrics
from app.passes import Passes, Reading
from app.settings import Settings
from app.stages import Stages
from app.uploads import Upload
from app.vitals import Vitals
from pacs.results.rendering.worker_pool import ResultPool
from xray.engines.engine import choose_device
from xray.errors import InputError, OutOfScopeError, TooManyPixelsError, XrayError
from xray.network.ood import Scope
from xray.predictor import Prediction

GPU_BATCH = 64
"""Radiographs per forward pass on a GPU, which has its full rate only with many."""

ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)


@dataclass
class Service:
    """Everything a running replica holds.

    Attributes:
        generation: the artifacts that answer; a request takes them once and keeps them to its end.
        results: reads and writes what goes back to archives, in processes apart.
        hospital: None where the settings name no jobs.
    """

    settings: Settings
    generation: Generation
    batcher: Batcher
    workers: ThreadPoolExecutor
    passes: Passes
    admission: Admission
    vitals: Vitals
    metrics: Metrics
    results: ResultPool
    clock: OwnTime
    hospital: Hospital | None = None
    reloading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def predict(
        self, generation: Generation, uploads: Sequence[Upload], stages: Stages, place: Place
    ) -> list[Prediction]:
        """One pass for the radiographs of one study.

        They are decoded one after the other: a request occupies one worker at a time, and none once it has failed.

        Args:
            place: the request's; its radiographs count there until the engine has them.

        Raises:
            InputError: one of the images cannot be read, or they have too many pixels together; none is answered.
        """
        readings: list[Reading] = []
        with stages.measure("decode"):
            for number, upload in enumerate(uploads, start=1):
                try:
                    readings.append(await self.passes.prepare(generation, upload.data))
                    self._require_pixels(readings)
                except InputError as error:
                    # By its place and not by its name, which may hold a patient's.
                    raise type(error)(f"Radiograph {number} of {len(uploads)}: {error}") from error
        place.radiographs = 0
        answers = await asyncio.gather(*(self.passes.predict(reading) for reading in readings))
        for _, source in answers:
            self.metrics.answers.labels(source).inc()
        passes = [done for done, _ in answers]
        stages.add("wait", max(each.wait_seconds for each in passes))
        stages.add("forward", max(each.forward_seconds for each in passes))
        return [each.prediction for each in passes]

    async def scopes(self, generation: Generation, predictions: Sequence[Prediction]) -> tuple[Scope, ...]:
        """How far each radiograph is from what can be judged; empty where the settings do not ask.

        Raises:
            OutOfScopeError: one of them is too far, and the settings refuse it.
        """
        if self.settings.scope == "off":
            return ()
        scope = generation.gallery.scope
        scopes: list[Scope] = await self.off_loop(
            lambda: [scope(each.prepared.radiograph, each.embedding_D) for each in predictions]
        )
        if self.settings.scope == "refuse":
            for number, found in enumerate(scopes, start=1):
                if not found.inside:
                    raise OutOfScopeError(f"Radiograph {number} of {len(scopes)} {found.explanation}")
        return tuple(scopes)

    async def off_loop(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        """Run searching or drawing in the worker threads."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, work, *arguments)

    async def reload(self) -> Generation:
        """Read the artifacts' folders anew; the old pair serves until the new one is verified and warm.

        Raises:
            ReloadRefusedError: another reload is under way, or the new pair is not fit to serve; the old one goes on.
        """
        if self.reloading.locked():
            raise ReloadRefusedError("A reload is under way; wait for it.")
        async with self.reloading:
            started = time.monotonic()
            try:
                generation = await asyncio.to_thread(load_generation, self.settings)
            except Exception as error:  # whatever is wrong with the new pair, the old one goes on
                expected = isinstance(error, XrayError)
                logger.error(
                    "The reload failed, and checkpoint %s goes on: %s",
                    self.generation.predictor.manifest.id,
                    error if expected else type(error).__name__,
                    exc_info=not expected,
                )
                raise ReloadRefusedError(
                    "The new checkpoint or gallery is not fit to serve and the old pair goes on; the log says why."
                ) from error
            self.take(generation)
            await asyncio.to_thread(gc.collect)  # a network is full of cycles, and the old one's memory is wanted back
            logger.info("Reloaded in %.1f s; serving %s.", time.monotonic() - started, generation)
            return generation

    def take(self, generation: Generation) -> None:
        """Let a generation answer from now on; requests that are inside end with the one they began with."""
        self.generation = generation
        self.passes.forget()
        self.admission.pace.restart(generation.batch_seconds)
        self.metrics.describe(generation)

    def _require_pixels(self, readings: Sequence[Reading]) -> None:
        pixels = sum(reading.prepared.radiograph.pixels.size for reading in readings)
        if pixels > self.settings.max_pixels:
            raise TooManyPixelsError(
                f"The study has {pixels:,} pixels up to here; scale it down to at most {self.settings.max_pixels:,}."
            )


def load_service(settings: Settings) -> Service:
    """Read and verify the artifacts and wire everything together.

    Raises:
        ArtifactError: a file is missing or damaged, or gallery and checkpoint do not belong together.
        InputError: the device is not there.
        PacsError: the jobs or archives that the settings name are not to be had.
    """
    if choose_device(settings.device).type == "cuda" and "max_batch" not in settings.model_fields_set:
        settings = settings.model_copy(update={"max_batch": GPU_BATCH})
    # NumPy's BLAS keeps its threads spinning for 25 ms after a product, on the cores that the engine wants.
    threadpool_limits(limits=1, user_api="blas")
    return assemble(settings, load_generation(settings), load_hospital(settings))


def assemble(settings: Settings, generation: Generation, hospital: Hospital | None = None) -> Service:
    """Give a generation its batcher, workers, door and metrics; nothing runs yet."""
    clock, metrics = OwnTime(), Metrics()

    def on_batch(size: int, seconds: float) -> None:
        admission.pace.observe(size, seconds)
        metrics.batch_size.observe(size)
        metrics.forward_seconds.observe(seconds)

    batcher = Batcher(settings.max_batch, on_batch, clock)
    admission = Admission(settings, queued=lambda: batcher.queued)
    workers = ThreadPoolExecutor(settings.decode_threads, "decode")
    passes = Passes(settings, batcher, workers)
    vitals = Vitals(settings, batcher, admission)
    metrics.watch("osteon_pending_requests", "Requests in the service.", lambda: len(admission.inside))
    metrics.watch("osteon_pending_radiographs", "Radiographs of these requests.", lambda: admission.radiographs)
    metrics.watch("osteon_pending_bytes", "Bytes of their bodies.", lambda: admission.size)
    metrics.watch("osteon_queue_age_seconds", "How long the first in the queue waits.", lambda: batcher.oldest_seconds)
    metrics.watch("osteon_canary_age_seconds", "Since the canary had its known answer.", lambda: vitals.canary_age)
    metrics.watch("osteon_kept_bytes", "Of answers that are kept.", lambda: passes.kept_bytes)
    results = ResultPool(settings.decode_seconds, settings.max_pixels)
    service = Service(
        settings, generation, batcher, workers, passes, admission, vitals, metrics, results, clock, hospital
    )
    service.take(generation)
    return service
