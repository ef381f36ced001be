"""Folders that are either whole or not there: written aside, manifest last, then renamed; checked when read."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from xray.errors import ArtifactError

MANIFEST = "manifest.json"
READABLE_BY_ALL = 0o644
ManifestT = TypeVar("ManifestT")


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target` if the block succeeds, and vanishes if not.

    A killed process leaves at most a `.NAME.partial` folder, which no reader looks at and the next writer clears.
    """
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
        _flush_to_disk(file)
    previous = target.with_name(f".{target.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    if target.exists():
        target.rename(previous)
    finished.rename(target)
    _flush_to_disk(target.parent)
    shutil.rmtree(previous, ignore_errors=True)


def sha256(file: Path) -> str:
    """Hex digest of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path, manifest: Any) -> None:
    """Write a manifest dataclass as readable JSON; call it last."""
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def read_manifest(folder: Path, manifest_type: type[ManifestT]) -> ManifestT:
    """Read and check a folder's manifest.

    Raises:
        ArtifactError: there is none, or it is not of this type.
    """
    file = folder / MANIFEST
    try:
        return msgspec.json.decode(file.read_bytes(), type=manifest_type)
    except FileNotFoundError as error:
        raise ArtifactError(f"{file} is missing; {folder} is not a finished artifact.") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{file} is damaged or of another version: {error}") from error


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


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
