"""Decodes images in child processes, where memory is bounded and decoding can be stopped."""

from typing import Any

import msgspec
import numpy as np

from xray.errors import UnreadableImageError
from xray.images.decoding.decoder_worker import DECODE, IDENTIFY
from xray.images.dicom.tags import Identity
from xray.images.radiograph import MAX_PIXELS, Box, DicomFacts, Radiograph
from xray.sandbox.pool import ProcessEndedError, ProcessNotStartedError, ProcessPool

BROUGHT_DOWN = "The image brings its decoder down; export it again as an ordinary file."


class DecoderPool:
    """As many processes as decode at once; touched on the event loop only."""

    def __init__(self, at_once: int, seconds: float, max_pixels: int = MAX_PIXELS) -> None:
        """`seconds` are those of one file; see `ProcessPool.answer`."""
        self._seconds = seconds
        self._processes = ProcessPool("xray.images.decoding.decoder_worker", [str(max_pixels)], at_once)

    async def decode(self, data: bytes) -> Radiograph:
        """See `xray.images.decoding.decode.decode_radiograph`.

        Raises:
            UnreadableImageError: also where decoding took too long or too much memory, or brought the decoder down.
            InputError: any other that decoding raises.
            ProcessNotStartedError: no decoder can be started, so the image may be sound.
        """
        header, pixels = await self._answer(DECODE, data)
        facts = header["facts"]
        return Radiograph(
            np.frombuffer(pixels, np.uint8).reshape(header["shape"]),
            facts["inverted"],
            facts["coloured"],
            msgspec.convert(facts["dicom"], DicomFacts | None),
            msgspec.convert(facts["content"], Box | None),
            facts["pixel_aspect"],
        )

    async def identify(self, data: bytes) -> Identity:
        """See `xray.images.dicom.decode.identify`; raises as `decode` does."""
        header, _ = await self._answer(IDENTIFY, data)
        return msgspec.convert(header["facts"], Identity)

    async def close(self) -> None:
        """Let the idle processes go; they end with their input."""
        await self._processes.close()

    async def _answer(self, question: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            return await self._processes.answer(question, data, self._seconds)
        except TimeoutError as error:
            raise UnreadableImageError(
                f"The image takes more than {self._seconds:g} s to decode; save it as an ordinary file."
            ) from error
        except ProcessNotStartedError:
            raise
        except ProcessEndedError as error:
            raise UnreadableImageError(BROUGHT_DOWN) from error
