"""Child process that reads headers and renders results: `python -m pacs.results.rendering.worker MAX_PIXELS`.

It uses the protocol of `xray.sandbox.worker`. Replies are the types in `pacs.results.result` as msgpack, or JSON.
"""

import json
import sys

from xray.sandbox.worker import MemoryLimits, send_reply, serve

BASE_BYTES = 2 << 30
"""Address space in bytes for Python with its libraries, for the largest capture while it is drawn, and for a file."""
BYTES_A_PIXEL = 8
"""Additional address space in bytes for each pixel that a file may have, because some files have to be inflated."""
MAX_RESIDENT_BYTES = 700 << 20
"""Resident memory in bytes above which the process is replaced after a request; a fresh process has 150 MB."""
READ_SOURCE, RENDER_RESULTS, TO_JSON, FINGERPRINT = b"S", b"R", b"D", b"P"
"""The kinds of requests."""


def main() -> None:
    """Render results in the worker process on request until the parent process ends."""
    max_pixels = int(sys.argv[1])
    limits = MemoryLimits(BASE_BYTES + BYTES_A_PIXEL * max_pixels, MAX_RESIDENT_BYTES)
    serve(_import, lambda question, data: _answer(question, data, max_pixels), limits)


def _import() -> None:
    import pacs.results.dicom_json
    import pacs.results.rendering.render
    import pacs.results.source  # noqa: F401


def _answer(question: bytes, data: bytes, max_pixels: int) -> None:
    import msgspec

    from pacs.results.dicom_json import result_to_json
    from pacs.results.fingerprint import compute_fingerprint
    from pacs.results.rendering.render import render_results
    from pacs.results.result import StudyFinding
    from pacs.results.source import read_source
    from xray.errors import InputError

    try:
        if question == READ_SOURCE:
            answer = msgspec.msgpack.encode(read_source(data, max_pixels))
        elif question == RENDER_RESULTS:
            answer = msgspec.msgpack.encode(render_results(msgspec.msgpack.decode(data, type=StudyFinding)))
        elif question == FINGERPRINT:
            answer = compute_fingerprint(data)
        else:
            answer = json.dumps(result_to_json(data)).encode()
    except InputError as error:
        send_reply({"error": type(error).__name__, "detail": str(error)})
    else:
        send_reply({}, answer)


if __name__ == "__main__":
    main()
