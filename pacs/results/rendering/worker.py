"""Child process that reads source headers and writes results: `python -m pacs.results.rendering.worker MAX_PIXELS`.

The protocol is that of `xray.sandbox.worker`. Answers are msgpack of the types of `pacs.results.result`, or DICOM JSON.
"""

import json
import sys

from xray.sandbox.worker import MemoryLimits, serve, write

BASE_BYTES = 2 << 30
"""Address space of Python and its libraries, of the largest picture of a study while it is drawn, and of a file."""
BYTES_A_PIXEL = 8
"""Of a file whose pixels are passed over, inflated where it is deflated."""
SWOLLEN_BYTES = 700 << 20
"""Resident after a request, beyond which the process gives its memory back; a fresh one takes 150 MB."""
READ_SOURCE, WRITE_RESULTS, DESCRIBE, PROVE = b"S", b"R", b"D", b"P"


def main() -> None:
    max_pixels = int(sys.argv[1])
    limits = MemoryLimits(BASE_BYTES + BYTES_A_PIXEL * max_pixels, SWOLLEN_BYTES)
    serve(_import, lambda question, data: _answer(question, data, max_pixels), limits)


def _import() -> None:
    import pacs.results.rendering.render
    import pacs.results.result_json
    import pacs.results.source  # noqa: F401


def _answer(question: bytes, data: bytes, max_pixels: int) -> None:
    import msgspec

    from pacs.results.fingerprint import proof_of
    from pacs.results.rendering.render import results_of
    from pacs.results.result import StudyFinding
    from pacs.results.result_json import json_of
    from pacs.results.source import source_of
    from xray.errors import InputError

    try:
        if question == READ_SOURCE:
            answer = msgspec.msgpack.encode(source_of(data, max_pixels))
        elif question == WRITE_RESULTS:
            answer = msgspec.msgpack.encode(results_of(msgspec.msgpack.decode(data, type=StudyFinding)))
        elif question == PROVE:
            answer = proof_of(data)
        else:
            answer = json.dumps(json_of(data)).encode()
    except InputError as error:
        write({"error": type(error).__name__, "detail": str(error)})
    else:
        write({}, answer)


if __name__ == "__main__":
    main()
