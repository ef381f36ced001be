"""Image bytes in, the network's input out: ordinary files in a worker thread, costly ones in a process of their own.

A thread cannot be stopped, so no file may keep one for long. What announces many pixels or many scans, as few honest
files do, is decoded where memory is bounded and time can be ended.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from app.settings import Settings
from xray import errors
from xray.errors import InputError, UnreadableImageError
from xray.image import Radiograph, decode_radiograph, decoding_effort
from xray.predictor import Predictor, Prepared

ROOT = Path(__file__).resolve().parent.parent
QUICK_EFFORT = 10_000_000
"""Pixels times scans that a worker thread decodes in a fraction of a second."""
ONE_THREAD = ("env", "OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1")
"""Each thread of a pool that decoding never uses would take address space from the image."""
BROUGHT_DOWN = "The image brings its decoder down; export it again as an ordinary PNG or JPEG."


class Decoder:
    """Decodes and preprocesses, in the workers or beside them."""

    def __init__(self, settings: Settings, workers: Executor) -> None:
        self._workers, self._max_pixels, self._seconds = workers, settings.max_pixels, settings.decode_seconds
        self._turns = asyncio.Semaphore(settings.decode_threads)

    async def prepare(self, predictor: Predictor, data: bytes) -> Prepared:
        """See `xray.image.decode_radiograph`.

        Raises:
            UnreadableImageError: also where decoding took too long or too much memory, or brought the decoder down.
            InputError: any other that decoding raises.
        """
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(self._workers, self._prepare_quickly, predictor, data)
        if prepared is not None:
            return prepared
        async with self._turns:
            written = await self._decoded_apart(data)
        return await loop.run_in_executor(self._workers, _read_and_prepare, predictor, written)

    def _prepare_quickly(self, predictor: Predictor, data: bytes) -> Prepared | None:
        """None where it would take long."""
        if decoding_effort(data) > QUICK_EFFORT:
            return None
        return predictor.prepare(decode_radiograph(data, self._max_pixels))

    async def _decoded_apart(self, data: bytes) -> bytes:
        command = [*ONE_THREAD, sys.executable, "-m", "app.decode_process", str(self._max_pixels)]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE)
        try:
            async with asyncio.timeout(self._seconds):
                written, _ = await process.communicate(data)
        except TimeoutError as error:
            raise UnreadableImageError(
                f"The image takes more than {self._seconds:g} s to decode; save it as an ordinary PNG or JPEG."
            ) from error
        except RuntimeError as error:
            # uvloop's, where the process has ended before it was given the image.
            raise UnreadableImageError(BROUGHT_DOWN) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise UnreadableImageError(BROUGHT_DOWN)
        return written


def _read_and_prepare(predictor: Predictor, written: bytes) -> Prepared:
    """What the process wrote: a radiograph, or the error that decoding raised there."""
    line, _, pixels = written.partition(b"\n")
    header = json.loads(line)
    if "error" in header:
        kind: type[InputError] = getattr(errors, header["error"])
        raise kind(header["detail"])
    pixels_HW = np.frombuffer(pixels, np.uint8).reshape(header["shape"])
    return predictor.prepare(Radiograph(pixels_HW, **header["facts"]))
