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
from app.inference.admission import Admission, Place
from app.inference.batcher import Batcher, Pass
from app.inference.clock import OwnTime
from app.inference.model_bundle import Generation, load_generation
from app.inference.prediction_cache import Passes, Reading, Source
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
    """The network behind its batcher, and the gallery beside it.

    Attributes:
        generation: the artifacts that answer. A request takes them once and keeps them to its end.
        on_answer: called with the source of each radiograph's answer.
        on_generation: called with the artifacts that answer from now on.
    """

    settings: Settings
    generation: Generation
    batcher: Batcher
    workers: ThreadPoolExecutor
    passes: Passes
    admission: Admission
    clock: OwnTime
    on_answer: Callable[[Source], None]
    on_generation: Callable[[Generation], None]
    reloading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def predict(
        self, generation: Generation, images: Sequence[bytes], stages: Stages, place: Place
    ) -> list[Prediction]:
        """One pass for the radiographs of one study.

        They are decoded one after the other: a request occupies one worker at a time, and none once it has failed.

        Args:
            place: the request's; its radiographs count there until the engine has them.

        Raises:
            InputError: one of the images cannot be read, or they have too many pixels together; none is answered.
            MixedStudyError: they name different studies or patients.
        """
        readings: list[Reading] = []
        with stages.measure("decode"):
            for number, image in enumerate(images, start=1):
                try:
                    readings.append(await self.passes.prepare(generation, image))
                    self._require_pixels(readings)
                    _require_same_study(readings)
                except InputError as error:
                    # By its place and not by its name, which may hold a patient's.
                    raise type(error)(f"Radiograph {number} of {len(images)}: {error}") from error
        place.radiographs = 0
        passes = await asyncio.gather(*(self.run(reading) for reading in readings))
        stages.add("wait", max(each.wait_seconds for each in passes))
        stages.add("forward", max(each.forward_seconds for each in passes))
        return [each.prediction for each in passes]

    async def run(self, reading: Reading) -> Pass:
        """The network's answer for one decoded radiograph, from a pass or from the cache."""
        done, source = await self.passes.predict(reading)
        self.on_answer(source)
        return done

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
        self.on_generation(generation)

    def _require_pixels(self, readings: Sequence[Reading]) -> None:
        pixels = sum(reading.prepared.radiograph.pixels.size for reading in readings)
        if pixels > self.settings.max_pixels:
            raise TooManyPixelsError(
                f"The study has {pixels:,} pixels up to here; scale it down to at most {self.settings.max_pixels:,}."
            )


def _require_same_study(readings: Sequence[Reading]) -> None:
    """Compare the latest radiograph with all before; PNG and JPEG files say nothing of their study."""
    facts = [each.prepared.radiograph.dicom for each in readings if each.prepared.radiograph.dicom is not None]
    if readings[-1].prepared.radiograph.dicom is None:
        return
    *others, latest = facts
    if len({each.study_uid for each in facts} - {None}) > 1:
        raise MixedStudyError("The file names another study than one before; send each study in a request of its own.")
    if not all(is_same_patient(each.patient, latest.patient) for each in others):
        raise MixedStudyError("The file names another patient than one before; send each patient's study on its own.")
