"""Decodes images for the network: small PNG and JPEG files in a worker thread, all others in child processes.

A thread cannot be stopped, so no file may occupy one for long. PNG and JPEG files with many pixels or scans, and DICOM
files, whose headers alone may inflate without limit, are decoded in processes with limits on memory and time.
"""

import asyncio
from concurrent.futures import Executor

from app.settings import Settings
from xray.images.decoding.decode import decode_radiograph, decoding_effort
from xray.images.decoding.decoder_pool import DecoderPool
from xray.images.dicom.tags import Identity
from xray.images.radiograph import Radiograph
from xray.predictor import Predictor, Prepared

MAX_QUICK_EFFORT = 10_000_000
"""Maximum product of pixels and scans for a worker thread, which decodes that in a fraction of a second."""


class Decoder:
    """Decodes images and preprocesses them for the network, in worker threads and child processes."""

    def __init__(self, settings: Settings, workers: Executor) -> None:
        self._workers, self._max_pixels = workers, settings.max_pixels
        self._processes = DecoderPool(settings.decode_threads, settings.decode_seconds, settings.max_pixels)

    async def prepare(self, predictor: Predictor, data: bytes) -> Prepared:
        """Decode an image in a worker thread or a child process, and preprocess it for a network.

        Raises:
            InputError: the image is invalid; see `decode_radiograph`.
            UnreadableImageError: also if decoding takes too much time or memory, or crashes.
        """
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(self._workers, self._prepare_if_quick, predictor, data)
        if prepared is not None:
            return prepared
        radiograph = await self._processes.decode(data)
        return await loop.run_in_executor(self._workers, predictor.prepare, radiograph)

    async def decode(self, data: bytes) -> Radiograph:
        """Decode an image in one of the service's child processes; raises the same errors as `prepare`."""
        return await self._processes.decode(data)

    async def identify(self, data: bytes) -> Identity:
        """Read a DICOM file's UIDs and patient in a child process of the service; raises the errors of `prepare`."""
        return await self._processes.identify(data)

    async def close(self) -> None:
        """Stop the service's child processes that decode images."""
        await self._processes.close()

    def _prepare_if_quick(self, predictor: Predictor, data: bytes) -> Prepared | None:
        if decoding_effort(data) > MAX_QUICK_EFFORT:
            return None
        return predictor.prepare(decode_radiograph(data, self._max_pixels))
