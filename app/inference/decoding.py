"""Image bytes in, the network's input out: ordinary images in a worker thread, all else in processes of their own.

A thread cannot be stopped, so no file may keep one for long. What announces many pixels or many scans, as few honest
images do, and DICOM files, whose headers alone may inflate to anything, are decoded where memory is bounded and time
can be ended.
"""

import asyncio
from concurrent.futures import Executor

from app.settings import Settings
from xray.images.decoding.decode import decode_radiograph, decoding_effort
from xray.images.decoding.decoder_pool import DecoderPool
from xray.images.dicom.tags import Identity
from xray.images.radiograph import Radiograph
from xray.predictor import Predictor, Prepared

QUICK_EFFORT = 10_000_000
"""Pixels times scans that a worker thread decodes in a fraction of a second."""


class Decoder:
    """Decodes and preprocesses, in the workers or beside them."""

    def __init__(self, settings: Settings, workers: Executor) -> None:
        self._workers, self._max_pixels = workers, settings.max_pixels
        self._apart = DecoderPool(settings.decode_threads, settings.decode_seconds, settings.max_pixels)

    async def prepare(self, predictor: Predictor, data: bytes) -> Prepared:
        """See `xray.images.decoding.decode.decode_radiograph`.

        Raises:
            UnreadableImageError: also where decoding took too long or too much memory, or brought the decoder down.
            InputError: any other that decoding raises.
        """
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(self._workers, self._prepare_quickly, predictor, data)
        if prepared is not None:
            return prepared
        radiograph = await self._apart.decode(data)
        return await loop.run_in_executor(self._workers, predictor.prepare, radiograph)

    async def decode(self, data: bytes) -> Radiograph:
        """See `xray.images.decoding.decode.decode_radiograph`; its process apart raises as `prepare` does."""
        return await self._apart.decode(data)

    async def identify(self, data: bytes) -> Identity:
        """See `xray.images.dicom.decode.identify`; its process apart raises as `prepare` does."""
        return await self._apart.identify(data)

    async def close(self) -> None:
        await self._apart.close()

    def _prepare_quickly(self, predictor: Predictor, data: bytes) -> Prepared | None:
        """None where it would take long."""
        if decoding_effort(data) > QUICK_EFFORT:
            return None
        return predictor.prepare(decode_radiograph(data, self._max_pixels))
