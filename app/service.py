"""Uploads in, a study's prediction out: decode, batch, wait, each in its place and none on the event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from app.batcher import Batcher
from app.errors import DeadlineError, OverloadedError
from app.metrics import Metrics
from app.settings import Settings
from app.uploads import Upload
from xray.checkpoint import load_checkpoint
from xray.engine import choose_device, load_engine
from xray.errors import InputError
from xray.gallery import Gallery, load_gallery
from xray.image import decode_radiograph
from xray.predictor import Predictor, Prepared, StudyPrediction

ResultT = TypeVar("ResultT")


@dataclass
class Places:
    """How many requests may be inside at once, and how many are; touched on the event loop only."""

    limit: int
    taken: int = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place for the length of the block.

        Raises:
            OverloadedError: none is free.
        """
        if self.taken == self.limit:
            raise OverloadedError(f"All {self.limit} places are taken; send the request again after the pause.")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


@dataclass(frozen=True)
class Service:
    """Everything a running replica holds."""

    settings: Settings
    predictor: Predictor
    gallery: Gallery
    batcher: Batcher
    workers: ThreadPoolExecutor
    metrics: Metrics
    places: Places

    async def predict(self, uploads: Sequence[Upload]) -> StudyPrediction:
        """One pass for the radiographs of one study.

        They are decoded one after the other: a request occupies one worker at a time, and none once it has failed.

        Raises:
            InputError: one of the images cannot be read, or they have too many pixels together; none is answered.
        """
        prepared: list[Prepared] = []
        for upload in uploads:
            pixels_left = self.settings.max_pixels - sum(each.radiograph.pixels.size for each in prepared)
            place = f"{len(prepared) + 1} of {len(uploads)}"
            prepared.append(await self.off_loop(self._prepare, upload, pixels_left, place))
        waiting = [asyncio.wrap_future(future) for future in self.batcher.submit(prepared)]
        return self.predictor.judge(await asyncio.gather(*waiting))

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """Bound the time of a request, from the reading of its body to its reply; what it queued is then dropped.

        Raises:
            DeadlineError: the settings' time is over.
        """
        seconds = self.settings.deadline_seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise DeadlineError(
                f"There was no answer within {seconds:g} s of the request's head; send the body without pause, or send "
                "the request again, to another replica if any."
            ) from error

    async def off_loop(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        """Run decoding, searching or drawing in the worker threads."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, work, *arguments)

    def _prepare(self, upload: Upload, max_pixels: int, place: str) -> Prepared:
        try:
            return self.predictor.prepare(decode_radiograph(upload.data, max_pixels))
        except InputError as error:
            # By its place and not by its name, which may hold a patient's.
            raise type(error)(f"Radiograph {place}: {error}") from error


def load_service(settings: Settings) -> Service:
    """Read and verify the artifacts and wire everything together.

    Raises:
        ArtifactError: a file is missing or damaged, or gallery and checkpoint do not belong together.
        InputError: the device is not there.
    """
    device = choose_device(settings.device)
    checkpoint = load_checkpoint(settings.checkpoint)
    gallery = load_gallery(settings.gallery, checkpoint.manifest.id, on_gpu=device.type == "cuda")
    engine = load_engine(checkpoint, settings.device, settings.precision, settings.cache)
    return assemble(settings, Predictor(checkpoint.manifest, engine), gallery)


def assemble(settings: Settings, predictor: Predictor, gallery: Gallery) -> Service:
    """Give a predictor and a gallery their batcher, workers, places and metrics; nothing runs yet."""
    places = Places(settings.max_pending)
    metrics = Metrics(lambda: places.taken)
    return Service(
        settings,
        predictor,
        gallery,
        Batcher(predictor, settings.max_batch, metrics.batch_size.observe),
        ThreadPoolExecutor(settings.decode_threads, "decode"),
        metrics,
        places,
    )
