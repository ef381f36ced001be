"""Predicts studies with the artifacts that serve now, and exchanges these artifacts while requests run."""

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
    """The one way to predict, for requests and for jobs.

    Attributes:
        bundle: the artifacts in use. A request reads them once and uses the same ones to its end.
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
        """Predict the radiographs of one study in one pass.

        They are decoded one after the other: a request occupies one worker at a time, and none once it has failed.

        Args:
            permit: the request's permit, which counts the radiographs until the engine has them.

        Raises:
            InputError: an image cannot be read, or the images have too many pixels together.
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
                    # By number and not by name, because a file name may hold a patient's.
                    raise type(error)(f"Radiograph {number} of {len(images)}: {error}") from error
        permit.radiographs = 0
        predictions = await asyncio.gather(*(self.run(upload) for upload in uploads))
        stages.add("wait", max(each.wait_seconds for each in predictions))
        stages.add("forward", max(each.forward_seconds for each in predictions))
        return [each.prediction for each in predictions]

    async def run(self, upload: DecodedUpload) -> TimedPrediction:
        """Return the prediction of one decoded radiograph, from a pass or from the cache."""
        prediction, source = await self.cache.predict(upload)
        self.on_prediction(source)
        return prediction

    async def scopes(self, bundle: ModelBundle, predictions: Sequence[Prediction]) -> tuple[Scope, ...]:
        """Return how far each radiograph is from the training data; empty if the settings switch the check off.

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
        """Run a function in the worker threads."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, work, *arguments)

    async def reload(self) -> ModelBundle:
        """Load the artifacts again; the present bundle serves until the new one is verified and warm.

        Raises:
            ReloadRefusedError: another reload is running, or the new artifacts cannot serve.
        """
        if self.reloading.locked():
            raise ReloadRefusedError("A reload is running; wait until it ends.")
        async with self.reloading:
            started = time.monotonic()
            try:
                bundle = await asyncio.to_thread(load_bundle, self.settings)
            except Exception as error:  # whatever is wrong with the new artifacts, the present ones go on
                is_expected = isinstance(error, XrayError)
                logger.error(
                    "The reload failed, and checkpoint %s goes on: %s",
                    self.bundle.predictor.manifest.id,
                    error if is_expected else type(error).__name__,
                    exc_info=not is_expected,
                )
                raise ReloadRefusedError(
                    "The new checkpoint or gallery is not fit to serve and the old pair goes on; the log says why."
                ) from error
            self.use(bundle)
            await asyncio.to_thread(gc.collect)  # a network has reference cycles, which keep the old one's memory
            logger.info("Reloaded in %.1f s; serving %s.", time.monotonic() - started, bundle)
            return bundle

    def use(self, bundle: ModelBundle) -> None:
        """Serve new requests with a bundle; requests in flight keep the one that they started with."""
        self.bundle = bundle
        self.cache.clear()
        self.admission.latency.restart(bundle.batch_seconds)
        self.on_bundle(bundle)

    def _require_pixels(self, uploads: Sequence[DecodedUpload]) -> None:
        pixels = sum(upload.prepared.radiograph.pixels.size for upload in uploads)
        if pixels > self.settings.max_pixels:
            raise TooManyPixelsError(
                f"The study has {pixels:,} pixels up to here; scale it down to at most {self.settings.max_pixels:,}."
            )


def _require_same_study(uploads: Sequence[DecodedUpload]) -> None:
    """Compare the latest file with all before it; PNG and JPEG files do not name their study."""
    headers = [each.prepared.radiograph.dicom for each in uploads if each.prepared.radiograph.dicom is not None]
    if uploads[-1].prepared.radiograph.dicom is None:
        return
    *others, latest = headers
    if len({each.study_uid for each in headers} - {None}) > 1:
        raise MixedStudyError("The file names another study than one before; send each study in a request of its own.")
    if not all(is_same_patient(each.patient, latest.patient) for each in others):
        raise MixedStudyError("The file names another patient than one before; send each patient's study on its own.")
