"""The loop of a process that reads what strangers send, so that a file can harm nothing but this process.

Its memory is limited, it says nothing, and the process that started it may end it at any time. An empty line on stdout
says that it is ready. A request is one byte that names the question, the length of its data in 8 bytes, and the data;
an answer is a line of JSON whose `bytes` says how many bytes follow it. The process ends with its input.
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
"""Below the engine, which callers with ordinary images wait for."""
LENGTH_BYTES = 8
READY = b"\n"


@dataclass(frozen=True)
class MemoryLimits:
    """Bytes.

    Attributes:
        address_space: no allocation goes beyond it.
        resident: if more is in use after a request, the process ends and gives its memory back.
    """

    address_space: int
    resident: int


def serve(load: Callable[[], None], answer: Callable[[bytes, bytes], None], limits: MemoryLimits) -> None:
    """Answer requests until the input ends or too much memory stays in use.

    Args:
        load: imports what answering needs, below the memory limit and before any request's time counts.
        answer: takes a question and its data, and calls `write` once.
    """
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (limits.address_space, limits.address_space))
    logging.disable()  # what a library says about a file may repeat a patient's name
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # and so may what it prints
    load()
    while _is_ready(limits) and (question := sys.stdin.buffer.read(1)):
        length = int.from_bytes(sys.stdin.buffer.read(LENGTH_BYTES))
        answer(question, sys.stdin.buffer.read(length))


def write(header: Mapping[str, object], data: bytes = b"") -> None:
    """Send an answer."""
    sys.stdout.buffer.write(json.dumps({**header, "bytes": len(data)}).encode() + b"\n" + data)
    sys.stdout.buffer.flush()


def _is_ready(limits: MemoryLimits) -> bool:
    """Say so, unless the last request left too much in memory."""
    resident_pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    if resident_pages * resource.getpagesize() > limits.resident:
        return False
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    return True
