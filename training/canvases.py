"""A dataset's radiographs in, the network's inputs out: decoded once, kept in one file, read from there in every epoch.

    RUN/canvases/pixels.u8       uint8 (N, S, S), in the order of the records
    RUN/canvases/manifest.json   of which radiographs, how they were made, and the way back from each

Legend: N records, S canvas side.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from xray.artifact import read_manifest, write_manifest, written_whole
from xray.errors import ArtifactError, DatasetError, InputError
from xray.mura import SHOWN, MuraRecord, fingerprint
from xray.preprocess import Placement, PreprocessSpec, preprocess
from xray.radiograph import PixelArray
from xray.reading import read_radiograph

PIXELS = "pixels.u8"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class CanvasManifest:
    """What the pixels are of.

    Attributes:
        fingerprint: over the paths and targets of the radiographs.
        placements: of each radiograph on its canvas, by the dataset's path; their order is that of the pixels.
    """

    fingerprint: str
    preprocess: PreprocessSpec
    placements: dict[str, Placement]
    schema_version: int = SCHEMA_VERSION


class Canvases:
    """Looked up by the radiograph's path."""

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder, CanvasManifest)
        self.manifest, self._rows = manifest, {path: row for row, path in enumerate(manifest.placements)}
        side = manifest.preprocess.size
        self._pixels_NSS = np.memmap(folder / PIXELS, np.uint8, "r", shape=(len(self._rows), side, side))

    def __getitem__(self, path: str) -> tuple[PixelArray, Placement]:
        """The canvas (1, S, S) and the way back."""
        return self._pixels_NSS[self._rows[path]][np.newaxis], self.manifest.placements[path]


def decode_once(records: Sequence[MuraRecord], spec: PreprocessSpec, folder: Path) -> Canvases:
    """Decode every radiograph, unless the folder has them.

    Raises:
        DatasetError: counts the images that cannot be read, names the first few and says what is wrong with each.
    """
    kept = _kept(folder)
    if kept and (kept.manifest.fingerprint, kept.manifest.preprocess) == (fingerprint(records), spec):
        return kept
    with written_whole(folder) as partial:
        shape = (len(records), spec.size, spec.size)
        pixels_NSS = np.memmap(partial / PIXELS, np.uint8, "w+", shape=shape)
        outcomes = _all_decoded(records, spec, pixels_NSS)
        faults = [outcome for outcome in outcomes if isinstance(outcome, str)]
        if faults:
            raise DatasetError(unreadable(faults, len(records)))
        placements = {
            record.path: outcome
            for record, outcome in zip(records, outcomes, strict=True)
            if isinstance(outcome, Placement)
        }
        pixels_NSS.flush()
        write_manifest(partial, CanvasManifest(fingerprint(records), spec, placements))
    return Canvases(folder)


def _kept(folder: Path) -> Canvases | None:
    """What an earlier run left; None where that is nothing, or not whole."""
    try:
        return Canvases(folder)
    except (ArtifactError, OSError, ValueError):
        return None


def unreadable(faults: Sequence[str], count: int) -> str:
    """How many images cannot be read, and what is wrong with the first few."""
    return f"{len(faults)} of {count} images cannot be read:\n  " + "\n  ".join(faults[:SHOWN])


def _all_decoded(
    records: Sequence[MuraRecord], spec: PreprocessSpec, pixels_NSS: "np.memmap[tuple[int, ...], np.dtype[np.uint8]]"
) -> list[Placement | str]:
    """Fill the pixels; the placement of each radiograph, or what is wrong with it."""

    def decode(row: int) -> Placement | str:
        try:
            canvas_1SS, placement = preprocess(read_radiograph(records[row].file), spec)
        except (InputError, OSError) as error:
            return f"{records[row].path}: {error}"
        pixels_NSS[row] = canvas_1SS[0]
        return placement

    with ThreadPoolExecutor() as pool:
        return list(tqdm(pool.map(decode, range(len(records))), total=len(records), desc="decoding", unit="img"))
