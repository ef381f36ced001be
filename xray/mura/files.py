"""Finds the images of a dataset in a folder tree, and counts the entries that are left out."""

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
"""Number of bytes to read of a file to detect its format: DICOM has its signature in bytes 128 to 131."""
MAX_LISTED_PATHS = 5
"""Maximum number of paths that a message names."""

SYSTEM_FOLDERS = frozenset({"__macosx", "lost+found", "system volume information"})
SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "dicomdir"})
"""Names in lower case. A DICOMDIR is a DICOM file, but only a table of contents."""
HIDDEN = "hidden or system files and folders"
OTHER_NAME = "links to files that are read under another name"
NOT_REGULAR = "entries that are neither file nor folder"
NO_SUFFIX = "files without suffix"
"""Reasons for which entries are left out."""

FileIdentity = tuple[int, int]
"""Device number and inode number."""


@dataclass
class FoundImages:
    """The image files found in a dataset's folder tree.

    Attributes:
        images: the file for each path below the folder, with `/`; image2 comes before image10.
        folders: the path of each folder that was searched, below the top folder.
        left_out: number of entries that were left out, by suffix or reason.
        linked: number of entries of `images` that are hard links to another entry.
    """

    images: dict[str, Path] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    linked: int = 0


@dataclass(frozen=True)
class _Entry:
    """A file or folder; `subpath` is its printable path below the searched folder."""

    path: Path
    subpath: str


def find_images(folder: Path) -> FoundImages:
    """Search a dataset's folder and all folders below it for image files, following symbolic links.

    An entry that is reached without a link keeps its name, and a link to it is left out. So loops end, and nothing
    counts twice. Two hard links are two images, because neither is the original.

    Raises:
        DatasetError: the folder does not exist, a folder or file cannot be read, a link is broken and has no image
            suffix, or two names are equal once they are printable.
    """
    if not folder.is_dir():
        raise DatasetError(f"{to_printable(str(folder))} is not a folder.")
    found = FoundImages()
    seen = {_identity(parent.stat()) for parent in folder.resolve().parents}
    waiting = deque([_Entry(folder, "")])
    links = deque[_Entry]()
    while waiting or links:
        entry = waiting.popleft() if waiting else links.popleft()
        status = _stat(entry)
        if status is None:
            _add_image(found, entry)
        elif stat.S_ISDIR(status.st_mode):
            if _is_first_visit(status, seen, found):
                _queue_entries(entry, waiting, links, found)
        elif not stat.S_ISREG(status.st_mode):
            found.left_out[NOT_REGULAR] += 1
        elif not is_image(entry.path):
            found.left_out[file_kind(entry.path)] += 1
        elif status.st_nlink > 1 and not entry.path.is_symlink():
            found.linked += _identity(status) in seen
            seen.add(_identity(status))
            _add_image(found, entry)
        elif _is_first_visit(status, seen, found):
            _add_image(found, entry)
    found.images = dict(sorted(found.images.items(), key=lambda item: natural_sort_key(item[0])))
    return found


def is_image(file: Path) -> bool:
    """Return whether a file in a dataset's tree is an image, by its suffix or, without one, by its first bytes.

    Many DICOM files have no suffix.
    """
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    if suffix and not suffix[1:].isdigit():  # the name may be a UID, which ends in a number
        return False
    with _readable(file), file.open("rb") as stream:
        head = stream.read(HEADER_BYTES)
    return is_dicom(head) or detect_format(head) is not None


def file_kind(file: Path) -> str:
    """Return why a dataset's file that is not an image is left out, such as `.tif files`."""
    suffix = to_printable(file.suffix.lower())
    return f"{suffix} files" if suffix else NO_SUFFIX


def is_system_name(name: str) -> bool:
    """Return whether the search for a dataset's images ignores a name, such as `.DS_Store`.

    Such names are hidden or belong to the system; `._image1.png` and `@eaDir` are others.
    """
    return name.startswith((".", "@", "#", "$")) or name.lower() in SYSTEM_FOLDERS | SYSTEM_FILES


def to_printable(name: str) -> str:
    """Convert the name of a dataset's file to printable text; a name that is not UTF-8 is read as Latin-1."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("latin-1")
    return name


def natural_sort_key(path: str) -> list[tuple[int, str]]:
    """Return a sort key for a dataset's files that puts image2 before image10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)]


def listing(paths: list[str], what: str) -> str:
    """Return a sentence that counts a dataset's paths and names the first: `7 <what>: a, b, c, d, e, …`."""
    shown = ", ".join(paths[:MAX_LISTED_PATHS]) + (", …" if len(paths) > MAX_LISTED_PATHS else "")
    return f"{len(paths)} {what}: {shown}"


def _queue_entries(folder: _Entry, waiting: deque[_Entry], links: deque[_Entry], found: FoundImages) -> None:
    """Queue the entries of a folder; links are queued separately, so that they are followed last."""
    if folder.subpath:
        found.folders.append(folder.subpath)
    for name, is_link in _list_entries(folder.path):
        if is_system_name(name):
            found.left_out[HIDDEN] += 1
            continue
        subpath = f"{folder.subpath}/{to_printable(name)}".lstrip("/")
        (links if is_link else waiting).append(_Entry(folder.path / name, subpath))


def _list_entries(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the name of each entry of a folder, sorted, and whether it is a symbolic link."""
    with _readable(folder), os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_symlink()) for entry in entries)
    return iter(found)


def _stat(entry: _Entry) -> os.stat_result | None:
    """Return the status of an entry; None for a broken link with an image suffix, which is reported when it is read."""
    try:
        return entry.path.stat()
    except OSError as error:
        if entry.path.suffix.lower() in IMAGE_SUFFIXES:
            return None
        raise DatasetError(
            f"{to_printable(str(entry.path))} is a broken link ({error.strerror}); mount its target to, or remove it."
        ) from error


def _is_first_visit(status: os.stat_result, seen: set[FileIdentity], found: FoundImages) -> bool:
    """Return whether a file or folder is reached for the first time; otherwise count it as left out."""
    if _identity(status) in seen:
        found.left_out[OTHER_NAME] += 1
        return False
    seen.add(_identity(status))
    return True


def _add_image(found: FoundImages, entry: _Entry) -> None:
    if entry.subpath in found.images:
        raise DatasetError(
            f"{entry.subpath} is the name of two files once names that are not UTF-8 are read as Latin-1; rename one."
        )
    found.images[entry.subpath] = entry.path


def _identity(status: os.stat_result) -> FileIdentity:
    return status.st_dev, status.st_ino


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise DatasetError if the block cannot read the path."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{to_printable(str(path))} cannot be read ({error.strerror}).") from error
