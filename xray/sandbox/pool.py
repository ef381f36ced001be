"""Child processes that read untrusted files, so that a hostile file can harm nothing but its own process.

A process stays warm for the next file, because its imports cost more than most files. It is replaced after
`FILES_A_PROCESS` files, and after any trouble.
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

from xray import errors
from xray.errors import InputError
from xray.sandbox.worker import LENGTH_BYTES, READY

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = ("env", "OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1")
"""Each thread of a pool that decoding never uses would take address space from the image."""
PIPE_BYTES = 1 << 20
"""That are read of a process' answer before it has to wait."""
START_SECONDS = 60.0
"""For a process to begin: a second, unless the machine has much else to do."""
STARVED_FACTOR = 10
"""Times the seconds of a file that may pass on the clock, where a process gets too little of the processors."""
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
FILES_A_PROCESS = 50
"""What a decoder leaks goes with its process."""


@dataclass
class _Worker:
    """A process and the files that it has answered."""

    process: Process
    files: int = 0


class ProcessEndedError(Exception):
    """A process ended, or said what is no answer, before it had answered."""


class ProcessNotStartedError(ProcessEndedError):
    """No process could be started, so the data is not to blame."""


class ProcessPool:
    """Up to `at_once` processes that run a module which calls `xray.sandbox.worker.serve`.

    Use it on the event loop only.
    """

    def __init__(self, module: str, arguments: Sequence[str], at_once: int) -> None:
        self._command = ["-m", module, *arguments]
        self._turns = asyncio.Semaphore(at_once)
        self._idle: list[_Worker] = []

    async def answer(self, question: bytes, data: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        """What a process says about the data: a header, and the bytes behind it.

        Args:
            seconds: of processor time that it may take. A process that is paused or starved is waited for, up to
                `STARVED_FACTOR` times as long.

        Raises:
            InputError: what the process has to object to the data.
            TimeoutError: it took too long.
            ProcessNotStartedError: there is no process to ask.
            ProcessEndedError: the data brought the process down.
        """
        try:
            async with self._turns, self._process() as process:
                header, rest = await _within(seconds, process, _asked(process, question, data))
        except (TimeoutError, ProcessEndedError):
            raise
        except (OSError, asyncio.IncompleteReadError, RuntimeError, ValueError) as error:
            # RuntimeError is uvloop's, where the process has ended before it was given the data.
            raise ProcessEndedError("The process ended before it answered.") from error
        if "error" in header:
            kind: type[InputError] = getattr(errors, header["error"])
            raise kind(header["detail"])
        return header, rest

    async def close(self) -> None:
        """Let the idle processes go; they end with their input."""
        for worker in self._idle:
            _close_input(worker.process)
        await asyncio.gather(*(worker.process.wait() for worker in self._idle))
        self._idle.clear()

    @contextlib.asynccontextmanager
    async def _process(self) -> AsyncIterator[Process]:
        """An idle process or a new one, which is kept only if the block succeeds: else it may still be at its file."""
        worker = await self._ready()
        try:
            yield worker.process
        except BaseException:  # a caller that hung up, too
            if worker.process.returncode is None:
                worker.process.kill()
            raise
        worker.files += 1
        if worker.files < FILES_A_PROCESS:
            self._idle.append(worker)
        else:
            _close_input(worker.process)

    async def _ready(self) -> _Worker:
        """An idle process that did not end after its last file, or a new one that has begun."""
        while self._idle:
            if await _says_ready(worker := self._idle.pop()):
                return worker
        try:
            if await _says_ready(worker := _Worker(await self._start())):
                return worker
        except (OSError, ValueError) as error:
            raise ProcessNotStartedError("The process cannot be started, or takes too long to begin.") from error
        raise ProcessNotStartedError("The process ended before it was ready.")

    async def _start(self) -> Process:
        command = [*ONE_THREAD, sys.executable, *self._command]
        return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE, limit=PIPE_BYTES)


async def _within(seconds: float, process: Process, answer: Coroutine[Any, Any, T]) -> T:
    """The answer of a process that has used no more than that of the processors.

    Raises:
        TimeoutError: it has used more, or waited for them for too long.
    """
    begun, used = time.monotonic(), processor_seconds(process.pid)
    task = asyncio.ensure_future(answer)
    try:
        left = seconds
        while not (await asyncio.wait({task}, timeout=left))[0]:
            passed = time.monotonic() - begun
            left = seconds - (passed if used is None else (processor_seconds(process.pid) or 0.0) - used)
            if left <= 0 or passed > STARVED_FACTOR * seconds:
                raise TimeoutError
        return task.result()
    finally:
        task.cancel()


def processor_seconds(pid: int) -> float | None:
    """What a process has used of the processors, as Linux counts it; None where it does not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    user, system = 11, 12  # of proc(5), counted from behind the name
    return (int(fields[user]) + int(fields[system])) / TICKS_A_SECOND


async def _says_ready(worker: _Worker) -> bool:
    assert worker.process.stdout is not None, "it is a pipe"
    try:
        async with asyncio.timeout(START_SECONDS):
            return await worker.process.stdout.readline() == READY
    except BaseException:  # a caller that hung up, too
        if worker.process.returncode is None:
            worker.process.kill()
        raise


async def _asked(process: Process, question: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
    assert process.stdin is not None
    assert process.stdout is not None, "both are pipes"
    process.stdin.write(question + len(data).to_bytes(LENGTH_BYTES) + data)
    await process.stdin.drain()
    header = json.loads(await process.stdout.readline())
    return header, await process.stdout.readexactly(header["bytes"])


def _close_input(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
