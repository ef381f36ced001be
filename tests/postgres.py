"""A real PostgreSQL server for the tests, in a folder of its own, heard on a UNIX socket alone."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import pg8000.native

from tests.waiting import HUNG_SECONDS, wait_until

DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
INITDB = str(DEBIAN[-1]) if DEBIAN else "initdb"
"""Debian keeps it off the PATH; elsewhere it is on it."""
QUICK = ("fsync=off", "listen_addresses=", "shared_buffers=16MB")
"""No power cut is tested here: fsync is left out."""


class _Process(TypedDict):
    """Arguments of `subprocess.Popen`."""

    cwd: Path
    user: NotRequired[int]
    group: NotRequired[int]
    extra_groups: NotRequired[list[int]]


@dataclass
class Postgres:
    """A server that runs; `stop` and `start` are for tests of its absence."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = [part for option in QUICK for part in ("-c", option)]
        command: list[str | Path] = [Path(_installed()).with_name("postgres"), "-D", self.folder / "data"]
        command += ["-k", self.folder, *options]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **_nobody_of_power(self.folder))
        wait_until(self._answers, "an answer of PostgreSQL")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(HUNG_SECONDS)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It keeps its connections and answers nothing, as behind a broken network."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        everyone = [self.process.pid, *map(int, children)]
        for process in everyone:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in everyone:
                os.kill(process, signal.SIGCONT)

    def emptied(self) -> str:
        """The address of its database, in which nothing is; quicker than a new one for each test."""
        self._run("DROP SCHEMA public CASCADE")
        self._run("CREATE SCHEMA public")
        return f"postgresql+pg8000://postgres@/postgres?unix_sock={self._socket}"

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "PostgreSQL ended"
        try:
            self._run("SELECT 1")
        except pg8000.Error:
            return False
        return True

    def _run(self, statement: str) -> None:
        connection = pg8000.native.Connection("postgres", unix_sock=self._socket)
        try:
            connection.run(statement)
        finally:
            connection.close()

    @property
    def _socket(self) -> str:
        return str(self.folder / ".s.PGSQL.5432")


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="pg") as name:  # short: a socket's path has at most 107 characters
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        command: list[str | Path] = [_installed(), "-D", folder / "data", "-U", "postgres", "-A", "trust"]
        command += ["-E", "UTF8", "--no-sync"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **_nobody_of_power(folder))
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _installed() -> str:
    path = shutil.which(INITDB)
    assert path is not None, "PostgreSQL is not installed"
    return path


def _nobody_of_power(folder: Path) -> _Process:
    """PostgreSQL refuses to be run by root."""
    if os.geteuid() != 0:
        return {"cwd": folder}
    user = pwd.getpwnam("postgres")
    return {"cwd": folder, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
