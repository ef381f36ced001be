"""Writes folders and files atomically, and verifies artifacts against their manifests when they are read.

An artifact is a folder with a `manifest.json`: a checkpoint, a gallery, a compiled network or a cache. It is written
under a temporary name, manifest last, and then renamed, so that readers find a complete folder or none.
"""

import dataclasses
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from xray.errors import ArtifactError, InputError, NoSpaceError

MANIFEST = "manifest.json"
"""The file that makes a folder an artifact."""
FILE_MODE = 0o644
"""Permissions of an artifact's files. safetensors lets only the owner read, but the service may run as another user."""
NO_SPACE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers for a full disk, an exceeded quota and an exceeded limit on file sizes."""
ManifestT = TypeVar("ManifestT")
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""A function that converts the fields of a manifest from an earlier schema version to this version."""


def require_replaceable(target: Path) -> None:
    """Check that writing `target` replaces nothing except an artifact; call this before a long computation.

    Raises:
        InputError: `target` exists and is not an artifact, or its name is not UTF-8, which some libraries require.
    """
    try:
        str(target).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"The name {str(target)!a} is not UTF-8; choose another folder.") from error
    backup = _backup_of(target)
    if backup.exists() and not target.exists():
        backup.rename(target)  # a writer was killed between the two renames
    if target.exists() and not (target / MANIFEST).is_file() and (target.is_file() or any(target.iterdir())):
        raise InputError(f"{target} exists and holds no {MANIFEST}, so it is not replaced; choose another folder.")


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder for an artifact, which replaces `target` if the block succeeds and is removed if it fails.

    A killed process leaves at most a `.NAME.partial` folder, which readers ignore and the next writer removes.

    Raises:
        InputError: `target` exists and is not an artifact.
        NoSpaceError: the disk is full; `target` is unchanged.
    """
    require_replaceable(target)
    partial = _partial_of(target)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with detect_full_disk(target):
            partial.mkdir(parents=True)
            yield partial
            replace_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def detect_full_disk(target: Path) -> Iterator[None]:
    """Raise NoSpaceError if the block cannot write an artifact or another file because `target`'s disk is full."""
    try:
        yield
    except NoSpaceError:
        raise
    except Exception as error:
        if reason := _no_space_reason(error):
            raise NoSpaceError(
                f"{reason}: {target} cannot be written. Free space on its disk or choose another disk; the previous "
                "content is kept."
            ) from error
        raise


def allocate_file(file: Path, size: int) -> None:
    """Create a file of `size` bytes for an artifact and reserve its disk space.

    Raises:
        NoSpaceError: the disk does not have enough space; the message says how much is needed.
    """
    with file.open("wb") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
        except OSError as error:
            if error.errno not in NO_SPACE_ERRNOS:
                raise
            raise NoSpaceError(
                f"{error.strerror}: {file.parent.parent} needs {size / 2**20:.1f} MiB for {file.name}. Free as much on "
                "its disk or choose another disk; the previous content is kept."
            ) from error


def replace_folder(finished: Path, target: Path) -> None:
    """Flush a finished artifact to the disk and rename it to `target`, whose previous content is removed."""
    for path in finished.rglob("*"):
        if path.is_file():
            path.chmod(FILE_MODE)
        flush_to_disk(path)
    backup = _backup_of(target)
    shutil.rmtree(backup, ignore_errors=True)
    if target.exists():
        target.rename(backup)
    try:
        finished.rename(target)
    except OSError:
        if backup.exists():
            backup.rename(target)
        raise
    flush_to_disk(target.parent)
    shutil.rmtree(backup, ignore_errors=True)


@contextmanager
def atomic_file(file: Path) -> Iterator[Path]:
    """Yield a temporary path; the file that the block writes there replaces `file` atomically and survives a power cut.

    Raises:
        NoSpaceError: the disk is full; `file` is unchanged.
    """
    partial = _partial_of(file)
    try:
        with detect_full_disk(file):
            yield partial
            flush_to_disk(partial)
            os.replace(partial, file)
            flush_to_disk(file.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def staged_files(folder: Path) -> Iterator[Path]:
    """Yield an empty folder; if the block succeeds, its files are moved to `folder`, which keeps all other files.

    Raises:
        NoSpaceError: the disk is full; the files in `folder` are unchanged.
    """
    partial = _partial_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with detect_full_disk(folder):
            partial.mkdir(parents=True)
            yield partial
            folder.mkdir(exist_ok=True)
            for file in sorted(partial.iterdir()):
                flush_to_disk(file)
            for file in sorted(partial.iterdir()):
                os.replace(file, folder / file.name)
            flush_to_disk(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sha256(file: Path) -> str:
    """Return the SHA-256 of an artifact's file, or of any other file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path, manifest: Any) -> None:
    """Write an artifact's manifest, a dataclass, as indented JSON; call this after all other files are written."""
    with atomic_file(folder / MANIFEST) as partial:
        partial.write_bytes(msgspec.json.format(_to_json(manifest), indent=2) + b"\n")


def read_manifest(
    folder: Path, manifest_type: type[ManifestT], upgrades: Mapping[int, Upgrade] | None = None
) -> ManifestT:
    """Read and check an artifact's manifest. Every field must be present, even if it has a default.

    Args:
        manifest_type: a dataclass whose `schema_version` has this code's version as its default.
        upgrades: for each earlier schema version, the function that converts its manifests to this version.

    Raises:
        ArtifactError: the manifest is missing, has another schema version, or is not of this type.
    """
    file = folder / MANIFEST
    try:
        stored = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        if upgrades and stored.get("schema_version") in upgrades:
            stored = upgrades[stored["schema_version"]](stored)
        _require_schema(file, stored, manifest_type)
        manifest = msgspec.convert(stored, manifest_type)
    except OSError as error:
        raise ArtifactError(
            f"{file} cannot be read ({error.strerror}); {folder} is not a finished artifact."
        ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{file} is damaged or of another version: {error}") from error
    if msgspec.json.decode(_to_json(manifest)) != stored:
        raise ArtifactError(f"{file} lacks fields or has unknown ones; make the artifact again with this version.")
    return manifest


def verify_checksums(folder: Path, checksums: Mapping[str, str]) -> None:
    """Compare the files of an artifact with the SHA-256 digests of its manifest, which are keyed by file name.

    Raises:
        ArtifactError: a file is missing or differs; the message names the first.
    """
    for name, expected in checksums.items():
        file = folder / name
        if not file.is_file():
            raise ArtifactError(f"{file} is missing; copy the whole folder again.")
        if sha256(file) != expected:
            raise ArtifactError(f"{file} is damaged: its SHA-256 differs from the manifest; copy the folder again.")


def flush_to_disk(path: Path) -> None:
    """Flush an artifact's or another file, or the names in a folder, to the disk, so that it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _to_json(manifest: Any) -> bytes:
    # Encode a dictionary, because msgspec omits fields of a dataclass that `msgspec.convert` filled with defaults.
    return msgspec.json.encode(dataclasses.asdict(manifest))


def _require_schema(file: Path, stored: dict[str, Any], manifest_type: Any) -> None:
    found, known = stored.get("schema_version"), manifest_type.schema_version
    if found != known:
        raise ArtifactError(
            f"{file} has schema {found} and this version reads {known}; make the artifact again with this version."
        )


def _partial_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _backup_of(target: Path) -> Path:
    resolved = target.resolve()  # "." has no name until it is resolved
    return resolved.with_name(f".{resolved.name}.previous")


def _no_space_reason(error: Exception) -> str:
    """Return the operating system's text for a full disk if that caused an error, otherwise an empty string."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno in NO_SPACE_ERRNOS else ""
    # The errors of native libraries, such as safetensors and FAISS, have no errno; they quote the operating system.
    return next((text for text in map(os.strerror, NO_SPACE_ERRNOS) if text in str(error)), "")
