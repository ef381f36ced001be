"""Finds the images below a folder of a dataset, and counts what it leaves out."""

import os
import re
import stat
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from xray.errors import DatasetError
from xray.images.dicom.file import is_dicom
from xray.images.raster.decode import detect_format

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".dcm", ".dicom", ".dic", ".ima"})
HEADER_BYTES = 132
"""A DICOM file says what it is in bytes 128 to 131; PNG and JPEG say it earlier."""
SHOWN = 5
"""How many offending paths an error message names."""

SYSTEM_FOLDERS = frozenset({"__macosx", "lost+found", "system volume information"})
SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "dicomdir"})
"""In lower case; a DICOMDIR is DICOM, but a table of contents."""
HIDDEN = "hidden or system files and folders"
OTHER_NAME = "links to what is read under another name"
NOT_REGULAR = "entries that are neither file nor folder"
NO_SUFFIX = "files without suffix"

FileIdentity = tuple[int, int]
"""Device and inode."""


@dataclass
class FoundImages:
    """What lies below a folder.

    Attributes:
        images: path below the folder, with `/`, to the file; image2 comes before image10.
        folders: path of every folder that was entered.
        left_out: how many entries were left out, by suffix or reason.
        linked: how many further hard links to an image already counted are among `images`.
    """

    images: dict[str, Path] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    linked: int = 0


@dataclass(frozen=True)
class _Entry:
    """A file or folder; `inner` is its printable path below the folder that is searched."""

    path: Path
    inner: str


def find_images(folder: Path) -> FoundImages:
    """Search a folder and all below it, following links.

    What was reached without a link keeps its name; a link to it counts as left out, so that a loop ends and nothing
    counts twice. Two hard links are two images: the file system calls neither of them a copy.

    Raises:
        DatasetError: there is no such folder, one cannot be read, a link without an image's suffix leads nowhere, or
            two names are the same once they are made printable.
    """
    if not folder.is_dir():
        raise DatasetError(f"{printable(str(folder))} is not a folder.")
    found, seen = FoundImages(), {_identity(parent.stat()) for parent in folder.resolve().parents}
    waiting, links = deque([_Entry(folder, "")]), deque[_Entry]()
    while waiting or links:
        entry = waiting.popleft() if waiting else links.popleft()
        status = _status(entry)
        if status is None:
            _add_image(found, entry)
        elif stat.S_ISDIR(status.st_mode):
            if _is_new(status, seen, found):
                _enter(entry, waiting, links, found)
        elif not stat.S_ISREG(status.st_mode):
            found.left_out[NOT_REGULAR] += 1
        elif not is_image(entry.path):
            found.left_out[kind_of(entry.path)] += 1
        elif status.st_nlink > 1 and not entry.path.is_symlink():
            found.linked += _identity(status) in seen
            seen.add(_identity(status))
            _add_image(found, entry)
        elif _is_new(status, seen, found):
            _add_image(found, entry)
    found.images = dict(sorted(found.images.items(), key=lambda item: natural_order(item[0])))
    return found


def is_image(file: Path) -> bool:
    """Whether a file is read: by its suffix, or by its first bytes where it has none, as DICOM files often do."""
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    if suffix and not suffix[1:].isdigit():  # a name that is a UID ends in a number
        return False
    with _readable(file), file.open("rb") as stream:
        head = stream.read(HEADER_BYTES)
    return is_dicom(head) or detect_format(head) is not None


def kind_of(file: Path) -> str:
    """The word under which a file that is not read is counted."""
    suffix = printable(file.suffix.lower())
    return f"{suffix} files" if suffix else NO_SUFFIX


def is_passed_over(name: str) -> bool:
    """Whether an entry belongs to the file system or to a program, such as `.DS_Store`, `._image1.png` or `@eaDir`."""
    return name.startswith((".", "@", "#", "$")) or name.lower() in SYSTEM_FOLDERS | SYSTEM_FILES


def printable(name: str) -> str:
    """A file's name as text; bytes that are no UTF-8 are read as Latin-1."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("latin-1")
    return name


def natural_order(path: str) -> list[tuple[int, str]]:
    """Sort key that puts image2 before image10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)]


def listing(paths: list[str], what: str) -> str:
    """The sentence that counts paths and names the first few."""
    shown = ", ".join(paths[:SHOWN]) + (", …" if len(paths) > SHOWN else "")
    return f"{len(paths)} {what}: {shown}"


def _enter(folder: _Entry, waiting: deque[_Entry], links: deque[_Entry], found: FoundImages) -> None:
    """Queue what the folder holds, links behind everything that is reached without one."""
    if folder.inner:
        found.folders.append(folder.inner)
    for name, is_link in _content(folder.path):
        if is_passed_over(name):
            found.left_out[HIDDEN] += 1
            continue
        inner = f"{folder.inner}/{printable(name)}".lstrip("/")
        (links if is_link else waiting).append(_Entry(folder.path / name, inner))


def _content(folder: Path) -> Iterator[tuple[str, bool]]:
    """Name of each entry of a folder, sorted, and whether it is a link."""
    with _readable(folder), os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_symlink()) for entry in entries)
    return iter(found)


def _status(entry: _Entry) -> os.stat_result | None:
    """What a path leads to; None for an image's name that leads nowhere, which whoever reads it reports by name."""
    try:
        return entry.path.stat()
    except OSError as error:
        if entry.path.suffix.lower() in IMAGE_SUFFIXES:
            return None
        raise DatasetError(
            f"{printable(str(entry.path))} is a link that leads nowhere ({error.strerror}); mount what it points "
            "to, or remove it."
        ) from error


def _is_new(status: os.stat_result, seen: set[FileIdentity], found: FoundImages) -> bool:
    """Whether a file or folder is reached for the first time; counts it if not."""
    if _identity(status) in seen:
        found.left_out[OTHER_NAME] += 1
        return False
    seen.add(_identity(status))
    return True


def _add_image(found: FoundImages, entry: _Entry) -> None:
    if entry.inner in found.images:
        raise DatasetError(f"{entry.inner} is the name of two files once bytes that are no UTF-8 are read as Latin-1.")
    found.images[entry.inner] = entry.path


def _identity(status: os.stat_result) -> FileIdentity:
    return status.st_dev, status.st_ino


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises: DatasetError: the block may not read the path."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{printable(str(path))} cannot be read ({error.strerror}).") from error
