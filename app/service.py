"""Uploads in, a study's prediction out: decode, batch, wait, each in its place and none on the event loop."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from app.admission import Admission
from app.batcher import Batcher
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


@dataclass(frozen=True)
class Service:
    """Everything a running replica holds."""

    settings: Settings
    predictor: Predictor
    gallery: Gallery
    batcher: Batcher
    workers: ThreadPoolExecutor
    metrics: Metrics
    admission: Admission

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
    """Give a predictor and a gallery their batcher, workers, door and metrics; nothing runs yet."""
    admission = Admission(settings)
    metrics = Metrics(admission)

    def on_batch(size: int, seconds: float) -> None:
        admission.pace.observe(size, seconds)
        metrics.batch_size.observe(size)
        metrics.forward_seconds.observe(seconds)

    return Service(
        settings,
        predictor,
        gallery,
        Batcher(predictor, settings.max_batch, on_batch),
        ThreadPoolExecutor(settings.decode_threads, "decode"),
        metrics,
        admission,
    )
