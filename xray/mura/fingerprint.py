"""Detects by its fingerprint whether a dataset's file has changed since it was read."""

import hashlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from xray.artifact import sha256

MIN_AGE_NS = 2_000_000_000
"""Minimum time in nanoseconds between a file's last change and its reading for a reliable stamp: file systems have
coarse clocks, and a second change within a tick does not change the stamp."""
UNREADABLE = ""
"""The digest of a file that cannot be read."""


@dataclass(frozen=True)
class FileStamp:
    """A file's status, to detect changes. Programs can set the time of modification, but not the time of change."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int


@dataclass(frozen=True)
class FileContent:
    """The fingerprint of a file's content.

    Attributes:
        digest: SHA-256 in hexadecimal digits.
        stamp: stamp of the file when it was read; None if it had changed less than `MIN_AGE_NS` before.
    """

    digest: str
    stamp: FileStamp | None


def read_content(file: Path) -> tuple[bytes, FileContent]:
    """Read a file; return its bytes and their fingerprint.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        stamp = _stamp(os.fstat(stream.fileno()))
        data = stream.read()
    is_settled = time.time_ns() - stamp.changed_ns > MIN_AGE_NS
    return data, FileContent(hashlib.sha256(data).hexdigest(), stamp if is_settled else None)


def is_unchanged(file: Path, content: FileContent) -> bool:
    """Return whether a dataset's file still has its fingerprint's content; it is only read if its stamp has changed."""
    try:
        return _stamp(file.stat()) == content.stamp or sha256(file) == content.digest
    except OSError:
        return False


def compute_digests(files: Iterable[Path]) -> list[str]:
    """Compute the SHA-256 of each of a dataset's files; `UNREADABLE` for one that cannot be read."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_digest, files))


def _digest(file: Path) -> str:
    try:
        return sha256(file)
    except OSError:
        return UNREADABLE


def _stamp(status: os.stat_result) -> FileStamp:
    return FileStamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
