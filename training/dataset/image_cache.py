"""Decodes a dataset's radiographs once and keeps the network's inputs in one file that every epoch reads.

    RUN/canvases/pixels.u8       uint8 (N, S, S), in the order of the records
    RUN/canvases/manifest.json   the radiographs, and how the canvases were made

Legend: N records, S canvas side.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training.dataset.radiographs import describe_unreadable
from xray.artifact import allocate_file, atomic_folder, read_manifest, write_manifest
from xray.errors import ArtifactError, DatasetError, InputError
from xray.images.decoding.decode import decode_radiograph
from xray.images.preprocess import PREPROCESS_VERSION, Placement, PreprocessSpec, preprocess
from xray.images.radiograph import PixelArray
from xray.mura.fingerprint import FileContent, is_unchanged, read_content
from xray.mura.studies import MuraRecord

PIXELS = "pixels.u8"
"""Name of the file of pixels."""
SCHEMA_VERSION = 2
"""Version of the manifest; canvases of another version are made again."""


@dataclass(frozen=True)
class Source:
    """The source of one cached canvas: its image file's content, and the radiograph's placement.

    Attributes:
        content: content of the file when it was decoded.
        placement: position of the radiograph on its canvas.
    """

    content: FileContent
    placement: Placement


@dataclass(frozen=True)
class CanvasManifest:
    """The image cache's manifest: the sources of its canvases, and how they were made.

    Attributes:
        preprocess_version: version of the preprocessing that made them.
        sources: sources by the radiograph's path, in the order of the pixels.
    """

    preprocess: PreprocessSpec
    preprocess_version: int
    sources: dict[str, Source]
    schema_version: int = SCHEMA_VERSION


class Canvases:
    """The image cache: the network's input for each radiograph of a training run, indexed by the radiograph's path."""

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder, CanvasManifest)
        self.manifest, self._rows = manifest, {path: row for row, path in enumerate(manifest.sources)}
        side = manifest.preprocess.size
        self._pixels_NSS = np.memmap(folder / PIXELS, np.uint8, "r", shape=(len(self._rows), side, side))

    def __getitem__(self, path: str) -> tuple[PixelArray, Placement]:
        """Return the canvas (1, S, S) of a radiograph, and the position of the radiograph on it."""
        return self._pixels_NSS[self._rows[path]][np.newaxis], self.manifest.sources[path].placement

    @property
    def digests(self) -> Mapping[str, str]:
        """Return the SHA-256 of each cached radiograph's file when it was decoded, by path."""
        return {path: source.content.digest for path, source in self.manifest.sources.items()}

    def are_of(self, records: Sequence[MuraRecord], spec: PreprocessSpec) -> bool:
        """Return whether decoding these records now would give the cached canvases."""
        made = self.manifest.preprocess, self.manifest.preprocess_version
        if made != (spec, PREPROCESS_VERSION) or self._rows.keys() != {record.path for record in records}:
            return False
        with ThreadPoolExecutor() as pool:
            return all(pool.map(self._is_unchanged, records))

    def _is_unchanged(self, record: MuraRecord) -> bool:
        return is_unchanged(record.file, self.manifest.sources[record.path].content)


def decode_once(records: Sequence[MuraRecord], spec: PreprocessSpec, folder: Path) -> Canvases:
    """Decode every radiograph into the cache's folder, unless it already has the canvases and no file has changed.

    Raises:
        DatasetError: images cannot be read; the message counts them and gives the reasons for the first few.
        NoSpaceError: the canvases do not fit on the disk; the folder is unchanged.
    """
    cached = _load_cached(folder)
    if cached and cached.are_of(records, spec):
        return cached
    with atomic_folder(folder) as partial:
        allocate_file(partial / PIXELS, len(records) * spec.size**2)
        outcomes = _decode_all(records, spec, partial / PIXELS)
        faults = [outcome for outcome in outcomes if isinstance(outcome, str)]
        if faults:
            raise DatasetError(describe_unreadable(faults, len(records)))
        sources = {
            record.path: outcome
            for record, outcome in zip(records, outcomes, strict=True)
            if isinstance(outcome, Source)
        }
        write_manifest(partial, CanvasManifest(spec, PREPROCESS_VERSION, sources))
    return Canvases(folder)


def _load_cached(folder: Path) -> Canvases | None:
    """Load the canvases of an earlier run; None if there are none or they are damaged."""
    try:
        return Canvases(folder)
    except (ArtifactError, OSError, ValueError):
        return None


def _decode_all(records: Sequence[MuraRecord], spec: PreprocessSpec, pixels: Path) -> list[Source | str]:
    """Write the file of pixels; return each radiograph's source, or the reason why it cannot be read.

    The file is not memory-mapped: on a full disk, a write raises an error, but a mapped page kills the process.
    """
    size = spec.size**2
    with pixels.open("r+b", buffering=0) as stream, ThreadPoolExecutor() as pool:

        def decode(row: int) -> Source | str:
            try:
                data, content = read_content(records[row].file)
                canvas_1SS, placement = preprocess(decode_radiograph(data), spec)
            except (InputError, OSError) as error:
                return f"{records[row].path}: {error}"
            _write_at(stream.fileno(), canvas_1SS.tobytes(), row * size)
            return Source(content, placement)

        return list(tqdm(pool.map(decode, range(len(records))), total=len(records), desc="decoding", unit="img"))


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of the data, because a single system call may write less."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
