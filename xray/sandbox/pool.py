"""A pool of child processes that read untrusted files, so that a hostile file can harm only its own process.

An idle process is kept for the next request, because its imports take longer than most files. It is replaced after
`MAX_REQUESTS_PER_PROCESS` requests and after any failure.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from xray.errors import (
    InputError,
    MixedStudyError,
    NoContentError,
    OutOfScopeError,
    TooManyPixelsError,
    UnreadableImageError,
    UnsupportedFormatError,
)
from xray.sandbox.worker import LENGTH_BYTES, READY

T = TypeVar("T")
REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
COMMAND_PREFIX = ("env", "OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1")
"""Start of the command. Decoding needs no threads, and each idle thread would take address space from the image."""
PIPE_BUFFER_BYTES = 1 << 20
"""Number of bytes of a reply to buffer before the process has to wait."""
START_TIMEOUT_SECONDS = 60.0
"""Timeout for a process to become ready, in seconds. It takes a second, or much longer on a busy machine."""
MAX_WALL_TIME_FACTOR = 10
"""Limit on the wall time of a request, as a multiple of its CPU time limit, in case the process gets too little CPU."""
CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MAX_REQUESTS_PER_PROCESS = 50
"""Number of requests after which a process is replaced, to free memory that decoders leak."""
INPUT_ERRORS = {
    error.__name__: error
    for error in (
        InputError,
        UnsupportedFormatError,
        TooManyPixelsError,
        UnreadableImageError,
        NoContentError,
        MixedStudyError,
        OutOfScopeError,
    )
}
"""The errors that a process may report, by their names in replies."""


@dataclass
class _Worker:
    """A process and the number of requests that it has handled."""

    process: Process
    requests: int = 0


class ProcessEndedError(Exception):
    """A child process of the pool ended, or sent an invalid reply."""


class ProcessNotStartedError(ProcessEndedError):
    """The pool could start no child process; the data is not the cause."""


class UnknownReplyError(Exception):
    """A child process of the pool reported an unknown error, a bug in the program and not a fault of the data."""


class ProcessPool:
    """A pool of up to `size` child processes that run a module which calls `xray.sandbox.worker.serve`.

    Use it on the event loop only.
    """

    def __init__(self, module: str, arguments: Sequence[str], size: int) -> None:
        self._command = ["-m", module, *arguments]
        self._permits = asyncio.Semaphore(size)
        self._idle: list[_Worker] = []

    async def request(self, kind: bytes, data: bytes, cpu_limit_seconds: float) -> tuple[dict[str, Any], bytes]:
        """Send a request to one of the pool's processes and return the header and the data of its reply.

        Args:
            kind: kind of request, one byte.
            cpu_limit_seconds: CPU time that the process may use. If it is paused or gets too little CPU, it may take up
                to `MAX_WALL_TIME_FACTOR` times as long.

        Raises:
            InputError: the process reported this error.
            TimeoutError: the request took too long.
            ProcessNotStartedError: no process can be started.
            ProcessEndedError: the data crashed the process.
            UnknownReplyError: the process reported an error that is not in `INPUT_ERRORS`.
        """
        try:
            async with self._permits, self._borrow_process() as process:
                header, rest = await _limit_time(cpu_limit_seconds, process, _exchange(process, kind, data))
        except (TimeoutError, ProcessEndedError):
            raise
        except (OSError, asyncio.IncompleteReadError, RuntimeError, ValueError) as error:
            # uvloop raises RuntimeError if the process has ended before the data is sent.
            raise ProcessEndedError("The process ended before it had replied.") from error
        if "error" in header:
            raise _reported_error(header)
        return header, rest

    async def close(self) -> None:
        """Close the input of the pool's idle processes and wait for them to end."""
        for worker in self._idle:
            _close_input(worker.process)
        await asyncio.gather(*(worker.process.wait() for worker in self._idle))
        self._idle.clear()

    @contextlib.asynccontextmanager
    async def _borrow_process(self) -> AsyncIterator[Process]:
        """Yield an idle or a new process. It is kept only if the block succeeds; otherwise it may still be busy."""
        worker = await self._ready_worker()
        try:
            yield worker.process
        except BaseException:  # including the cancellation when a caller hangs up
            if worker.process.returncode is None:
                worker.process.kill()
            raise
        worker.requests += 1
        if worker.requests < MAX_REQUESTS_PER_PROCESS:
            self._idle.append(worker)
        else:
            _close_input(worker.process)

    async def _ready_worker(self) -> _Worker:
        """Return an idle process that has not ended, or a new process that is ready."""
        while self._idle:
            if await _is_ready(worker := self._idle.pop()):
                return worker
        try:
            if await _is_ready(worker := _Worker(await self._start_process())):
                return worker
        except (OSError, ValueError) as error:
            raise ProcessNotStartedError("The process cannot be started, or takes too long to start.") from error
        raise ProcessNotStartedError("The process ended before it was ready.")

    async def _start_process(self) -> Process:
        command = [*COMMAND_PREFIX, sys.executable, *self._command]
        return await asyncio.create_subprocess_exec(
            *command, cwd=REPOSITORY_ROOT, stdin=PIPE, stdout=PIPE, limit=PIPE_BUFFER_BYTES
        )


async def _limit_time(cpu_limit_seconds: float, process: Process, reply: Coroutine[Any, Any, T]) -> T:
    """Await the reply of a process.

    Raises:
        TimeoutError: the process used more CPU time, or more than `MAX_WALL_TIME_FACTOR` times that in wall time.
    """
    started = time.monotonic()
    cpu_at_start = cpu_seconds(process.pid)
    task = asyncio.ensure_future(reply)
    try:
        left = cpu_limit_seconds
        while not (await asyncio.wait({task}, timeout=left))[0]:
            elapsed = time.monotonic() - started
            used = elapsed if cpu_at_start is None else (cpu_seconds(process.pid) or 0.0) - cpu_at_start
            left = cpu_limit_seconds - used
            if left <= 0 or elapsed > MAX_WALL_TIME_FACTOR * cpu_limit_seconds:
                raise TimeoutError
        return task.result()
    finally:
        task.cancel()


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time that a child process has used, in seconds; None if /proc does not have it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    user, system = 11, 12  # positions in proc_pid_stat(5), counted after the name of the program
    return (int(fields[user]) + int(fields[system])) / CLOCK_TICKS_PER_SECOND


async def _is_ready(worker: _Worker) -> bool:
    """Wait until the process is ready; return False if it ended instead."""
    assert worker.process.stdout is not None, "it is a pipe"
    try:
        async with asyncio.timeout(START_TIMEOUT_SECONDS):
            return await worker.process.stdout.readline() == READY
    except BaseException:  # including the cancellation when a caller hangs up
        if worker.process.returncode is None:
            worker.process.kill()
        raise


async def _exchange(process: Process, kind: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
    """Send a request and read the reply."""
    assert process.stdin is not None
    assert process.stdout is not None, "both are pipes"
    process.stdin.write(kind + len(data).to_bytes(LENGTH_BYTES) + data)
    await process.stdin.drain()
    header = json.loads(await process.stdout.readline())
    return header, await process.stdout.readexactly(header["bytes"])


def _reported_error(header: dict[str, Any]) -> Exception:
    error_type = INPUT_ERRORS.get(header["error"])
    if error_type is None:
        return UnknownReplyError("The process reported an error of unknown type; add the type to INPUT_ERRORS.")
    return error_type(header["detail"])


def _close_input(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
