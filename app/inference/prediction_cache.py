"""Image bytes in, predictions out: one decode and one pass for equal images, however many callers send them.

Equal images that come together share their work, and the latest answers are kept: `/cam` after `/classify` needs no
second pass.
"""

import asyncio
import hashlib
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal

from cachetools import LRUCache

from app.inference.batcher import Batcher, Pass
from app.inference.decoding import Decoder
from app.inference.model_bundle import Generation
from app.inference.single_flight import Shared
from app.settings import Settings
from xray.images.dicom.tags import Identity
from xray.images.radiograph import Radiograph
from xray.predictor import Prediction, Predictor, Prepared

Key = tuple[int, bytes]
Source = Literal["pass", "shared", "kept"]
"""Where an answer came from: a pass of its own, one that ran for another caller, or an earlier one."""


@dataclass(frozen=True)
class Reading:
    """A decoded image on its way to the network.

    Attributes:
        key: the generation's number and the SHA-256 of the bytes. Not the checkpoint's id, which stays the same when
            only its calibration is mended.
        kept: the answer, where one was at hand.
    """

    key: Key
    predictor: Predictor
    prepared: Prepared
    kept: Prediction | None = None


class Passes:
    """Decodes, queues and remembers; touched on the event loop only."""

    def __init__(self, settings: Settings, batcher: Batcher, workers: Executor) -> None:
        self._batcher, self._workers = batcher, workers
        self._decoder = Decoder(settings, workers)
        self._preparing: Shared[Prepared] = Shared()
        self._predicting: Shared[Pass] = Shared()
        self._kept: LRUCache[Key, Prediction] = LRUCache(settings.result_cache_bytes, _size)

    async def prepare(self, generation: Generation, data: bytes) -> Reading:
        """Decode, unless that has been done.

        Raises:
            InputError: the image cannot be read.
        """
        loop = asyncio.get_running_loop()
        digest = await loop.run_in_executor(self._workers, lambda: hashlib.sha256(data).digest())
        key, predictor = (generation.number, digest), generation.predictor
        kept = self._kept.get(key)
        if kept is not None:
            return Reading(key, predictor, kept.prepared, kept)
        return Reading(key, predictor, await self._preparing.once(key, lambda: self._decoder.prepare(predictor, data)))

    async def decode(self, data: bytes) -> Radiograph:
        """What a file shows; raises InputError where it cannot be read."""
        return await self._decoder.decode(data)

    async def identify(self, data: bytes) -> Identity:
        """Which DICOM object a file holds; raises InputError where it tells of none."""
        return await self._decoder.identify(data)

    async def predict(self, reading: Reading) -> tuple[Pass, Source]:
        """Run the network, unless the answer is at hand or on its way.

        Raises:
            EngineError: the pass failed.
            NotReadyError: the engine does not run.
        """
        if reading.kept is not None:
            return Pass(reading.kept, 0.0, 0.0), "kept"
        source: Source = "shared" if reading.key in self._predicting else "pass"
        done = await self._predicting.once(reading.key, lambda: self._queued(reading))
        if _size(done.prediction) <= self._kept.maxsize:
            self._kept[reading.key] = done.prediction
        return done, source

    async def anew(self, generation: Generation, data: bytes) -> Prediction:
        """What decoding and a pass say now, whatever is remembered."""
        prepared = await self._decoder.prepare(generation.predictor, data)
        done = await asyncio.wrap_future(self._batcher.submit(generation.predictor, prepared))
        return done.prediction

    def forget(self) -> None:
        """Let go of the answers of an earlier generation."""
        self._kept.clear()

    async def close(self) -> None:
        """Let the decoders go, once nobody asks any more."""
        await self._decoder.close()

    @property
    def kept_bytes(self) -> int:
        return int(self._kept.currsize)

    def _queued(self, reading: Reading) -> "asyncio.Future[Pass]":
        return asyncio.wrap_future(self._batcher.submit(reading.predictor, reading.prepared))


def _size(prediction: Prediction) -> int:
    """Bytes."""
    prepared = prediction.prepared
    arrays = prepared.radiograph.pixels, prepared.pixels_1SS, prediction.embedding_D, prediction.cam_hw
    return sum(array.nbytes for array in arrays)
