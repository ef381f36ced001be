"""Folders that are either whole or not there: written aside, manifest last, then renamed; checked when read."""

import dataclasses
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from xray.errors import ArtifactError, InputError, NoSpaceError

MANIFEST = "manifest.json"
READABLE_BY_ALL = 0o644
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A full disk, a quota, and a limit on the size of a file."""
ManifestT = TypeVar("ManifestT")


def require_replaceable(target: Path) -> None:
    """Make sure that writing `target` destroys nothing but an artifact; call it before hours are spent.

    Raises:
        InputError: there is something else, which is not ours to remove, or the name is no UTF-8, which libraries want.
    """
    try:
        str(target).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{str(target)!a} is no UTF-8; choose another folder.") from error
    previous = _previous(target)
    if previous.exists() and not target.exists():
        previous.rename(target)  # a writer was killed between its two renames
    if target.exists() and not (target / MANIFEST).is_file() and (target.is_file() or any(target.iterdir())):
        raise InputError(f"{target} is there and holds no {MANIFEST}; it would be replaced. Choose another folder.")


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target` if the block succeeds, and vanishes if not.

    A killed process leaves at most a `.NAME.partial` folder, which no reader looks at and the next writer clears.

    Raises:
        InputError: `target` is there and is no artifact.
        NoSpaceError: the disk is full; `target` is as it was.
    """
    require_replaceable(target)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with naming_a_full_disk(target):
            partial.mkdir(parents=True)
            yield partial
            put_in_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def naming_a_full_disk(target: Path) -> Iterator[None]:
    """Raise NoSpaceError for whatever the block raises when the disk of `target` is full.

    Libraries have errors of their own for it, and all of them quote the operating system.
    """
    try:
        yield
    except NoSpaceError:
        raise
    except Exception as error:
        if reason := _no_space(error):
            raise NoSpaceError(
                f"{reason}: {target} cannot be written. Free space on its disk, or write to another one; what "
                "was there before is kept."
            ) from error
        raise


def reserve(file: Path, size: int) -> None:
    """Create a file of `size` bytes, all of which the disk has set aside.

    Raises:
        NoSpaceError: the disk has not that much left; the message says how much is needed.
    """
    with file.open("wb") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise NoSpaceError(
                f"{error.strerror}: {file.parent.parent} needs {size / 2**20:.1f} MiB for {file.name}. Free as much "
                "on its disk, or write to another one; what was there before is kept."
            ) from error


def put_in_place(finished: Path, target: Path) -> None:
    """Rename a finished folder to `target`, whose former content is removed, once all of it is on the disk."""
    for file in finished.iterdir():
        file.chmod(READABLE_BY_ALL)  # safetensors writes for its owner alone; the service runs as another user
        flush_to_disk(file)
    previous = _previous(target)
    shutil.rmtree(previous, ignore_errors=True)
    if target.exists():
        target.rename(previous)
    try:
        finished.rename(target)
    except OSError:
        if previous.exists():
            previous.rename(target)
        raise
    flush_to_disk(target.parent)
    shutil.rmtree(previous, ignore_errors=True)


@contextmanager
def replaced_at_once(file: Path) -> Iterator[Path]:
    """Yield a path beside `file`; what the block writes there becomes `file` in one step, and survives a power cut.

    Raises:
        NoSpaceError: the disk is full; `file` is as it was.
    """
    partial = file.with_name(f".{file.name}.partial")
    try:
        with naming_a_full_disk(file):
            yield partial
            flush_to_disk(partial)
            os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replaced_together(folder: Path) -> Iterator[Path]:
    """Yield an empty folder; its files take the place of those of `folder` when the block succeeds.

    Raises:
        NoSpaceError: the disk is full; the files of `folder` are as they were.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with naming_a_full_disk(folder):
            partial.mkdir(parents=True)
            yield partial
            folder.mkdir(exist_ok=True)
            for file in sorted(partial.iterdir()):
                flush_to_disk(file)
            for file in sorted(partial.iterdir()):
                os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sha256(file: Path) -> str:
    """Hex digest of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path, manifest: Any) -> None:
    """Write a manifest dataclass as readable JSON, in one step; call it last."""
    with replaced_at_once(folder / MANIFEST) as partial:
        partial.write_bytes(msgspec.json.format(_json(manifest), indent=2) + b"\n")


def read_manifest(folder: Path, manifest_type: type[ManifestT]) -> ManifestT:
    """Read and check a folder's manifest: every field must be there, none is filled in.

    Args:
        manifest_type: a dataclass whose `schema_version` has this code's version as its default.

    Raises:
        ArtifactError: there is none, it is of another schema or not of this type.
    """
    file = folder / MANIFEST
    try:
        stored = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        _require_schema(file, stored, manifest_type)
        manifest = msgspec.convert(stored, manifest_type)
    except OSError as error:
        raise ArtifactError(
            f"{file} cannot be read ({error.strerror}); {folder} is not a finished artifact."
        ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{file} is damaged or of another version: {error}") from error
    if msgspec.json.decode(_json(manifest)) != stored:
        raise ArtifactError(f"{file} lacks fields or holds unknown ones; make the artifact again with this version.")
    return manifest


def _json(manifest: Any) -> bytes:
    # By way of a dictionary, because msgspec leaves out the fields of a dataclass that it filled in with defaults.
    return msgspec.json.encode(dataclasses.asdict(manifest))


def _require_schema(file: Path, stored: dict[str, Any], manifest_type: Any) -> None:
    found, known = stored.get("schema_version"), manifest_type.schema_version
    if found != known:
        raise ArtifactError(f"{file} has schema {found}; this version reads {known}: make the artifact again with it.")


def verify(folder: Path, checksums: Mapping[str, str]) -> None:
    """Compare the files of a folder with the SHA-256 digests of its manifest.

    Raises:
        ArtifactError: names the first file that is missing or differs.
    """
    for name, expected in checksums.items():
        file = folder / name
        if not file.is_file():
            raise ArtifactError(f"{file} is missing; copy the whole folder again.")
        if sha256(file) != expected:
            raise ArtifactError(f"{file} is damaged: its SHA-256 differs from the manifest; copy the folder again.")


def _previous(target: Path) -> Path:
    whole = target.resolve()  # so that "." has a name too
    return whole.with_name(f".{whole.name}.previous")


def flush_to_disk(path: Path) -> None:
    """A file, or a folder's list of names: what was written there outlives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _no_space(error: Exception) -> str:
    """What the operating system says of a full disk, if that is what an error is about."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return os.strerror(error.errno)
    return next((text for text in map(os.strerror, NO_SPACE) if text in str(error)), "")
