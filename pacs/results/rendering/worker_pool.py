"""Reading sources and writing results in processes apart, which a hostile header may bring down without harm."""

from typing import Any

import msgspec

from pacs.errors import ResultsError
from pacs.results.rendering.worker import DESCRIBE, PROVE, READ_SOURCE, WRITE_RESULTS
from pacs.results.result import Results, Source, StudyFinding
from xray.errors import UnreadableImageError
from xray.sandbox.pool import ProcessEndedError, ProcessNotStartedError, ProcessPool

AT_ONCE = 2
"""A study that is written, and a caller who asks for what was written."""
WRITE_SECONDS = 120.0
"""Of one study's results; they take a second or two."""
Json = dict[str, Any]


class ResultPool:
    """Touched on the event loop only."""

    def __init__(self, seconds: float, max_pixels: int) -> None:
        """`seconds` are those that reading one file may take."""
        self._seconds = seconds
        self._processes = ProcessPool("pacs.results.rendering.worker", [str(max_pixels)], AT_ONCE)

    async def source(self, data: bytes) -> Source:
        """See `pacs.results.source.source_of`.

        Raises:
            UnreadableImageError: also where reading took too long, or brought the process down.
            InputError: any other that reading raises.
            ResultsError: the file is not to blame.
        """
        try:
            _, answer = await self._processes.answer(READ_SOURCE, data, self._seconds)
        except TimeoutError as error:
            raise UnreadableImageError(
                f"The header takes more than {self._seconds:g} s to read; export the file with fewer attributes."
            ) from error
        except ProcessNotStartedError as error:
            raise ResultsError("The process that reads headers cannot be started.") from error
        except ProcessEndedError as error:
            raise UnreadableImageError("The header brings its reader down; export the file again.") from error
        return msgspec.msgpack.decode(answer, type=Source)

    async def results(self, finding: StudyFinding) -> Results:
        """See `pacs.results.rendering.render.results_of`. Raises ResultsError where they cannot be written."""
        try:
            _, answer = await self._processes.answer(WRITE_RESULTS, msgspec.msgpack.encode(finding), WRITE_SECONDS)
        except TimeoutError as error:
            raise ResultsError(f"Writing the results took more than {WRITE_SECONDS:g} s.") from error
        except ProcessEndedError as error:
            raise ResultsError("The process that writes results ended before they were written.") from error
        return msgspec.msgpack.decode(answer, type=Results)

    async def described(self, result: bytes) -> Json:
        """See `pacs.results.result_json.json_of`. Raises ResultsError where the result cannot be read."""
        try:
            _, answer = await self._processes.answer(DESCRIBE, result, self._seconds)
        except TimeoutError as error:
            raise ResultsError(f"Reading a result took more than {self._seconds:g} s.") from error
        except ProcessEndedError as error:
            raise ResultsError("The process that reads results ended before it had read one.") from error
        return msgspec.json.decode(answer, type=Json)

    async def proof(self, file: bytes) -> bytes | None:
        """See `pacs.results.fingerprint.proof_of`; None for a file that cannot be read, which is none of ours."""
        try:
            _, answer = await self._processes.answer(PROVE, file, self._seconds)
        except ProcessNotStartedError as error:
            raise ResultsError("The process that reads results cannot be started.") from error
        except (TimeoutError, ProcessEndedError):
            return None
        return answer

    async def close(self) -> None:
        """Let the processes go."""
        await self._processes.close()
