"""Tells whether a file still holds what was read from it."""

import hashlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from xray.artifact import sha256

SETTLED_NS = 2_000_000_000
"""Nanoseconds that a file's last change must lie behind its reading: clocks of file systems tick coarsely, and a
second change within the tick would not show."""
UNREADABLE = ""
"""In place of the digest of a file that cannot be read."""


@dataclass(frozen=True)
class Stamp:
    """What the file system says of a file; a program can set the time of modification, but not that of a change."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int


@dataclass(frozen=True)
class Content:
    """What was read of a file.

    Attributes:
        digest: SHA-256 in hex.
        stamp: of the file when it was read; None where it had been changed a moment ago.
    """

    digest: str
    stamp: Stamp | None


def read_content(file: Path) -> tuple[bytes, Content]:
    """The bytes of a file and their identity.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        stamp = _stamp(os.fstat(stream.fileno()))
        data = stream.read()
    settled = time.time_ns() - stamp.changed_ns > SETTLED_NS
    return data, Content(hashlib.sha256(data).hexdigest(), stamp if settled else None)


def is_unchanged(file: Path, content: Content) -> bool:
    """Whether a file holds what was read. The file is read again only where the file system cannot tell."""
    try:
        return _stamp(file.stat()) == content.stamp or sha256(file) == content.digest
    except OSError:
        return False


def digests(files: Iterable[Path]) -> list[str]:
    """SHA-256 of each file; `UNREADABLE` for one that cannot be read."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_digest, files))


def _digest(file: Path) -> str:
    try:
        return sha256(file)
    except OSError:
        return UNREADABLE


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
