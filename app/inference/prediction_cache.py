"""Predicts each image once: equal images that arrive together share a forward pass, and a cache keeps predictions.

A request to `/cam` after one to `/classify` for the same image therefore needs no second pass.
"""

import asyncio
import hashlib
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal

from cachetools import LRUCache

from app.inference.batcher import Batcher, TimedPrediction
from app.inference.decoding import Decoder
from app.inference.model_bundle import ModelBundle
from app.inference.single_flight import SingleFlight
from xray.predictor import Prediction, Predictor, Prepared

Key = tuple[int, bytes]
Source = Literal["pass", "shared", "kept"]
"""Where a prediction came from: its own forward pass, a pass for another caller, or the cache."""


@dataclass(frozen=True)
class DecodedUpload:
    """An image as the prediction cache looks it up: its key, and the image itself, decoded and ready for the network.

    Attributes:
        key: the bundle's number and the SHA-256 of the bytes. The checkpoint's ID would not do, because it stays the
            same when only the calibration changes.
        cached: the prediction if it is in the cache, otherwise None.
    """

    key: Key
    predictor: Predictor
    prepared: Prepared
    cached: Prediction | None = None


class PredictionCache:
    """The cache of predictions: decodes an image and queues it for the engine unless its prediction is kept.

    Use it on the event loop only.
    """

    def __init__(self, max_bytes: int, decoder: Decoder, batcher: Batcher, workers: Executor) -> None:
        self._decoder, self._batcher, self._workers = decoder, batcher, workers
        self._preparing: SingleFlight[Prepared] = SingleFlight()
        self._predicting: SingleFlight[TimedPrediction] = SingleFlight()
        self._predictions: LRUCache[Key, Prediction] = LRUCache(max_bytes, _size)

    async def prepare(self, bundle: ModelBundle, data: bytes) -> DecodedUpload:
        """Decode an image unless its prediction is in the cache or it is already being decoded.

        Raises:
            InputError: the image cannot be read.
        """
        loop = asyncio.get_running_loop()
        digest = await loop.run_in_executor(self._workers, lambda: hashlib.sha256(data).digest())
        key, predictor = (bundle.number, digest), bundle.predictor
        cached = self._predictions.get(key)
        if cached is not None:
            return DecodedUpload(key, predictor, cached.prepared, cached)
        prepared = await self._preparing.do(key, lambda: self._decoder.prepare(predictor, data))
        return DecodedUpload(key, predictor, prepared)

    async def predict(self, upload: DecodedUpload) -> tuple[TimedPrediction, Source]:
        """Run the network unless the prediction is in the cache or already being computed.

        Raises:
            EngineError: the forward pass failed.
            NotReadyError: the engine is not running.
        """
        if upload.cached is not None:
            return TimedPrediction(upload.cached, 0.0, 0.0), "kept"
        source: Source = "shared" if upload.key in self._predicting else "pass"
        timed = await self._predicting.do(upload.key, lambda: self._submit(upload.predictor, upload.prepared))
        if _size(timed.prediction) <= self._predictions.maxsize:
            self._predictions[upload.key] = timed.prediction
        return timed, source

    async def predict_uncached(self, bundle: ModelBundle, data: bytes) -> Prediction:
        """Decode an image and run the network, without the prediction cache."""
        prepared = await self._decoder.prepare(bundle.predictor, data)
        return (await self._submit(bundle.predictor, prepared)).prediction

    def clear(self) -> None:
        """Drop all predictions from the cache, because an earlier bundle made them."""
        self._predictions.clear()

    @property
    def size(self) -> int:
        """Size of the predictions in the cache, in bytes."""
        return int(self._predictions.currsize)

    def _submit(self, predictor: Predictor, prepared: Prepared) -> "asyncio.Future[TimedPrediction]":
        return asyncio.wrap_future(self._batcher.submit(predictor, prepared))


def _size(prediction: Prediction) -> int:
    """Return the size of a prediction's arrays, in bytes."""
    prepared = prediction.prepared
    arrays = prepared.radiograph.pixels, prepared.pixels_1SS, prediction.embedding_D, prediction.cam_hw
    return sum(array.nbytes for array in arrays)
