"""Predicts studies with the artifacts in use, and replaces these artifacts while requests run."""

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from app.errors import ReloadRefusedError
from app.inference.admission import Admission, Permit
from app.inference.batcher import Batcher, TimedPrediction
from app.inference.clock import ProcessClock
from app.inference.decoding import Decoder
from app.inference.model_bundle import ModelBundle, load_bundle
from app.inference.prediction_cache import DecodedUpload, PredictionCache, Source
from app.inference.timing import Stages
from app.settings import Settings
from xray.errors import InputError, MixedStudyError, OutOfScopeError, TooManyPixelsError, XrayError
from xray.images.patient_identity import is_same_patient
from xray.network.ood import Scope
from xray.predictor import Prediction

ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)


@dataclass
class PredictorService:
    """Predicts radiographs with the artifacts in use, for requests and jobs alike.

    Attributes:
        bundle: the artifacts in use. A request reads this once and uses the same artifacts to its end.
        workers: threads for decoding, searching and drawing.
        on_prediction: called with the source of each radiograph's prediction.
        on_bundle: called with each new bundle.
    """

    settings: Settings
    bundle: ModelBundle
    batcher: Batcher
    workers: ThreadPoolExecutor
    decoder: Decoder
    cache: PredictionCache
    admission: Admission
    clock: ProcessClock
    on_prediction: Callable[[Source], None]
    on_bundle: Callable[[ModelBundle], None]
    reloading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def predict(
        self, bundle: ModelBundle, images: Sequence[bytes], stages: Stages, permit: Permit
    ) -> list[Prediction]:
        """Predict the radiographs of one request's study in one forward pass.

        They are decoded one after the other: a request occupies one worker at a time, and none once it has failed.

        Args:
            permit: the request's permit, which counts the radiographs until the engine has them.

        Raises:
            InputError: an image cannot be read, or the images together have too many pixels.
            MixedStudyError: the files name different studies or patients.
        """
        uploads: list[DecodedUpload] = []
        with stages.measure("decode"):
            for number, image in enumerate(images, start=1):
                try:
                    uploads.append(await self.cache.prepare(bundle, image))
                    self._require_pixels(uploads)
                    _require_same_study(uploads)
                except InputError as error:
                    # Use the number and not the file name, which may contain a patient's name.
                    raise type(error)(f"Radiograph {number} of {len(images)}: {error}") from error
        permit.radiographs = 0
        predictions = await asyncio.gather(*(self.run(upload) for upload in uploads))
        stages.add("wait", max(each.wait_seconds for each in predictions))
        stages.add("forward", max(each.forward_seconds for each in predictions))
        return [each.prediction for each in predictions]

    async def run(self, upload: DecodedUpload) -> TimedPrediction:
        """Predict one decoded radiograph of a request or a job, by a forward pass or from the cache."""
        prediction, source = await self.cache.predict(upload)
        self.on_prediction(source)
        return prediction

    async def scopes(self, bundle: ModelBundle, predictions: Sequence[Prediction]) -> tuple[Scope, ...]:
        """Return how far a request's radiographs are from the training data; empty if the settings turn the check off.

        Raises:
            OutOfScopeError: a radiograph is out of scope, and the settings say to refuse it.
        """
        if self.settings.scope == "off":
            return ()
        scopes = await self.off_loop(lambda: [bundle.predictor.scope(each) for each in predictions])
        if self.settings.scope == "refuse":
            for number, found in enumerate(scopes, start=1):
                if not found.in_scope:
                    raise OutOfScopeError(f"Radiograph {number} of {len(scopes)} {found.explanation}")
        return tuple(scopes)

    async def off_loop(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        """Run a function in the predictor's threads, which decode, search and draw off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, work, *arguments)

    async def reload(self) -> ModelBundle:
        """Reload the artifacts in use; the current bundle serves until the new one is verified and warmed up.

        Raises:
            ReloadRefusedError: another reload is running, or the new artifacts cannot serve.
        """
        if self.reloading.locked():
            raise ReloadRefusedError("Another reload is running; wait until it has finished.")
        async with self.reloading:
            started = time.monotonic()
            try:
                bundle = await asyncio.to_thread(load_bundle, self.settings)
            except Exception as error:  # whatever is wrong with the new artifacts, the current ones keep serving
                is_expected = isinstance(error, XrayError)
                logger.error(
                    "The reload failed, and checkpoint %s keeps serving: %s",
                    self.bundle.predictor.manifest.id,
                    error if is_expected else type(error).__name__,
                    exc_info=not is_expected,
                )
                raise ReloadRefusedError(
                    "The new checkpoint or gallery cannot be used, and the old ones keep serving; the log says why."
                ) from error
            self.use(bundle)
            await asyncio.to_thread(gc.collect)  # frees the old network's memory, which reference cycles hold
            logger.info("Reloaded in %.1f s; serving %s.", time.monotonic() - started, bundle)
            return bundle

    def use(self, bundle: ModelBundle) -> None:
        """Put a bundle to use for new requests; requests in flight keep the bundle that they started with."""
        self.bundle = bundle
        self.cache.clear()
        self.admission.latency.restart(bundle.batch_seconds)
        self.on_bundle(bundle)

    def _require_pixels(self, uploads: Sequence[DecodedUpload]) -> None:
        pixels = sum(upload.prepared.radiograph.pixels.size for upload in uploads)
        if pixels > self.settings.max_pixels:
            raise TooManyPixelsError(
                f"The study has {pixels:,} pixels so far; scale it down to at most {self.settings.max_pixels:,}."
            )


def _require_same_study(uploads: Sequence[DecodedUpload]) -> None:
    """Compare the latest file with all files before it; PNG and JPEG files do not name their study."""
    headers = [each.prepared.radiograph.dicom for each in uploads if each.prepared.radiograph.dicom is not None]
    if uploads[-1].prepared.radiograph.dicom is None:
        return
    *others, latest = headers
    if len({each.study_uid for each in headers} - {None}) > 1:
        raise MixedStudyError(
            "The file names another study than an earlier file; send each study in a separate request."
        )
    if not all(is_same_patient(each.patient, latest.patient) for each in others):
        raise MixedStudyError(
            "The file names another patient than an earlier file; send each patient's study separately."
        )
