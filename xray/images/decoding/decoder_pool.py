"""Decodes images in child processes, where memory is limited and decoding can be stopped."""

from typing import Any

import msgspec
import numpy as np

from xray.errors import UnreadableImageError
from xray.images.decoding.decoder_worker import DECODE, IDENTIFY
from xray.images.dicom.tags import Identity
from xray.images.radiograph import MAX_PIXELS, Box, DicomFacts, Radiograph
from xray.sandbox.pool import ProcessEndedError, ProcessNotStartedError, ProcessPool


class DecoderPool:
    """A pool of child processes that decode images. Use it on the event loop only."""

    def __init__(self, size: int, seconds: float, max_pixels: int = MAX_PIXELS) -> None:
        """Create a pool of `size` processes; `seconds` is the limit on the CPU time for one file."""
        self._seconds = seconds
        self._processes = ProcessPool("xray.images.decoding.decoder_worker", [str(max_pixels)], size)

    async def decode(self, data: bytes) -> Radiograph:
        """Decode an image in one of the pool's child processes, like `xray.images.decoding.decode.decode_radiograph`.

        Raises:
            UnreadableImageError: also if decoding takes too much time or memory, or crashes the process.
            InputError: the file is invalid; see `decode_radiograph`.
            ProcessNotStartedError: no process can be started; the image may be valid.
        """
        header, pixels = await self._request(DECODE, data)
        facts = header["facts"]
        return Radiograph(
            np.frombuffer(pixels, np.uint8).reshape(header["shape"]),
            facts["inverted"],
            facts["color_share"],
            msgspec.convert(facts["dicom"], DicomFacts | None),
            msgspec.convert(facts["content"], Box | None),
            facts["pixel_aspect"],
        )

    async def identify(self, data: bytes) -> Identity:
        """Identify a DICOM object in one of the pool's child processes; raises the same errors as `decode`.

        The result is that of `xray.images.dicom.decode.identify`.
        """
        header, _ = await self._request(IDENTIFY, data)
        return msgspec.convert(header["facts"], Identity)

    async def close(self) -> None:
        """End the pool's decoder processes."""
        await self._processes.close()

    async def _request(self, kind: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            return await self._processes.request(kind, data, self._seconds)
        except TimeoutError as error:
            raise UnreadableImageError(
                f"The image takes more than {self._seconds:g} s to decode; save it as an ordinary file."
            ) from error
        except ProcessNotStartedError:
            raise
        except ProcessEndedError as error:
            raise UnreadableImageError("The image crashes its decoder; export it again as an ordinary file.") from error
