"""The request loop of a child process that reads untrusted files, so that a hostile file can harm only this process.

The process limits its own memory, prints nothing, and may be killed at any time. The protocol on stdin and stdout:

1. The process sends an empty line when it is ready.
2. The parent sends one byte for the kind of the request, the length of its data in 8 bytes (big-endian), and the data.
3. The process replies with one line of JSON, whose `bytes` says how many bytes of data follow it.

This repeats until stdin ends.
"""

import json
import logging
import os
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

NICENESS = 10
"""Niceness, so that the engine's process, which serves the callers with ordinary images, has a higher priority."""
LENGTH_BYTES = 8
"""Size of the length field before the data of a request, in bytes."""
READY = b"\n"
"""The line that a process sends when it is ready for a request."""


@dataclass(frozen=True)
class MemoryLimits:
    """The limits that a sandboxed worker keeps on its own memory, in bytes.

    Attributes:
        address_space: limit beyond which allocations fail.
        resident: if more memory is in use after a request, the process ends to free it.
    """

    address_space: int
    resident: int


def serve(load: Callable[[], None], handle: Callable[[bytes, bytes], None], limits: MemoryLimits) -> None:
    """Handle the parent's requests in a sandboxed process until stdin ends or too much memory stays in use.

    Args:
        load: imports the modules that `handle` needs, within the memory limit and before the first request is timed.
        handle: takes the kind and the data of a request, and calls `send_reply` once.
    """
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (limits.address_space, limits.address_space))
    logging.disable()  # a library's log line about a file may repeat a patient's name
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # and so may its output
    load()
    while _announce_ready(limits) and (kind := sys.stdin.buffer.read(1)):
        length = int.from_bytes(sys.stdin.buffer.read(LENGTH_BYTES))
        handle(kind, sys.stdin.buffer.read(length))


def send_reply(header: Mapping[str, object], data: bytes = b"") -> None:
    """Send the parent a sandboxed process's reply: a header, which must be valid as JSON, and data."""
    sys.stdout.buffer.write(json.dumps({**header, "bytes": len(data)}).encode() + b"\n" + data)
    sys.stdout.buffer.flush()


def _announce_ready(limits: MemoryLimits) -> bool:
    """Send `READY` and return True, unless the last request left too much memory in use."""
    resident_pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    if resident_pages * resource.getpagesize() > limits.resident:
        return False
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    return True
