"""Folders that are either whole or not there: written aside, manifest last, then renamed; checked when read."""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from xray.errors import ArtifactError, InputError

MANIFEST = "manifest.json"
READABLE_BY_ALL = 0o644
ManifestT = TypeVar("ManifestT")


def require_replaceable(target: Path) -> None:
    """Make sure that writing `target` destroys nothing but an artifact; call it before hours are spent.

    Raises:
        InputError: there is something else, which is not ours to remove.
    """
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
    """
    require_replaceable(target)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        put_in_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def put_in_place(finished: Path, target: Path) -> None:
    """Rename a finished folder to `target`, whose former content is removed, once all of it is on the disk."""
    for file in finished.iterdir():
        file.chmod(READABLE_BY_ALL)  # safetensors writes for its owner alone; the service runs as another user
        flush_to_disk(file)
    previous = _previous(target)
    shutil.rmtree(previous, ignore_errors=True)
    if target.exists():
        target.rename(previous)
    finished.rename(target)
    flush_to_disk(target.parent)
    shutil.rmtree(previous, ignore_errors=True)


@contextmanager
def replaced_at_once(file: Path) -> Iterator[Path]:
    """Yield a path beside `file`; what the block writes there becomes `file` in one step, and survives a power cut."""
    partial = file.with_name(f".{file.name}.partial")
    yield partial
    flush_to_disk(partial)
    os.replace(partial, file)


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
