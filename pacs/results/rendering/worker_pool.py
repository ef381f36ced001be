"""A pool of child processes that read headers and render results, so that a hostile file cannot crash the service."""

import msgspec

from pacs.errors import ResultsError
from pacs.results.dicom_json import DicomJson
from pacs.results.rendering.worker import FINGERPRINT, READ_SOURCE, RENDER_RESULTS, TO_JSON
from pacs.results.result import Results, Source, StudyFinding
from xray.errors import UnreadableImageError
from xray.sandbox.pool import ProcessEndedError, ProcessNotStartedError, ProcessPool

PROCESSES = 2
"""Number of processes: one can render a study while the other answers a request for results."""
RENDER_TIMEOUT_SECONDS = 120.0
"""Timeout for rendering the results of one study, in seconds; it usually takes one or two."""


class ResultPool:
    """The pool of processes that read headers and render results. Use it on the event loop only."""

    def __init__(self, seconds: float, max_pixels: int) -> None:
        """`seconds` is the timeout for reading one file, `max_pixels` the limit on its pixels."""
        self._seconds = seconds
        self._processes = ProcessPool("pacs.results.rendering.worker", [str(max_pixels)], PROCESSES)

    async def source(self, data: bytes) -> Source:
        """Read the attributes that results repeat in a process of the pool; see `pacs.results.source.read_source`.

        Raises:
            UnreadableImageError: also if reading takes too long or crashes the process.
            InputError: the file is invalid; see `read_source`.
            ResultsError: the process cannot be started.
        """
        try:
            _, answer = await self._processes.request(READ_SOURCE, data, self._seconds)
        except TimeoutError as error:
            raise UnreadableImageError(
                f"Reading the header takes more than {self._seconds:g} s; export the file with fewer attributes."
            ) from error
        except ProcessNotStartedError as error:
            raise ResultsError("The process that reads headers cannot be started.") from error
        except ProcessEndedError as error:
            raise UnreadableImageError(
                "The header cannot be read without crashing the reader; export the file again."
            ) from error
        return msgspec.msgpack.decode(answer, type=Source)

    async def render(self, finding: StudyFinding) -> Results:
        """Render the results of a study in a process of the pool. Raises ResultsError if they cannot be rendered."""
        try:
            _, answer = await self._processes.request(
                RENDER_RESULTS, msgspec.msgpack.encode(finding), RENDER_TIMEOUT_SECONDS
            )
        except TimeoutError as error:
            raise ResultsError(f"Rendering the results took more than {RENDER_TIMEOUT_SECONDS:g} s.") from error
        except ProcessEndedError as error:
            raise ResultsError("The process that renders results ended before it had rendered them.") from error
        return msgspec.msgpack.decode(answer, type=Results)

    async def to_json(self, result: bytes) -> DicomJson:
        """Convert a result to DICOM JSON in a process of the pool. Raises ResultsError if it cannot be read."""
        try:
            _, answer = await self._processes.request(TO_JSON, result, self._seconds)
        except TimeoutError as error:
            raise ResultsError(f"Reading a result took more than {self._seconds:g} s.") from error
        except ProcessEndedError as error:
            raise ResultsError("The process that reads results ended before it had read one.") from error
        return msgspec.json.decode(answer, type=DicomJson)

    async def fingerprint(self, file: bytes) -> bytes | None:
        """Compute the fingerprint of a DICOM file in a process of the pool.

        It is None if the file cannot be read and is therefore not one of our results.

        Raises:
            ResultsError: the process cannot be started.
        """
        try:
            _, answer = await self._processes.request(FINGERPRINT, file, self._seconds)
        except ProcessNotStartedError as error:
            raise ResultsError("The process that reads results cannot be started.") from error
        except (TimeoutError, ProcessEndedError):
            return None
        return answer

    async def close(self) -> None:
        """End the pool's processes that render results."""
        await self._processes.close()
