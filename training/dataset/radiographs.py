"""Reads all radiographs of a split before anything is computed, so that unreadable files are reported at once.

Legend: N records, S canvas side.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from xray.engines.batch_inference import prepare_ahead
from xray.errors import DatasetError, InputError
from xray.images.decoding.decode import read_radiograph
from xray.images.preprocess import PreprocessSpec, preprocess
from xray.images.radiograph import PixelArray, Radiograph
from xray.mura.files import MAX_LISTED_PATHS
from xray.mura.studies import MuraRecord

T = TypeVar("T")


def read_radiographs(records: Sequence[MuraRecord]) -> list[Radiograph]:
    """Read and decode the radiograph of each of a dataset's records.

    Raises:
        DatasetError: images cannot be read; the message counts them and gives the reasons for the first few.
    """
    return _read(records, lambda radiograph: radiograph)


def read_canvases(records: Sequence[MuraRecord], spec: PreprocessSpec) -> PixelArray:
    """Read the radiograph of each of a dataset's records as the network's input, uint8 (N, 1, S, S).

    Raises:
        DatasetError: images cannot be read; the message counts them and gives the reasons for the first few.
    """
    return np.stack(_read(records, lambda radiograph: preprocess(radiograph, spec)[0]))


def describe_unreadable(faults: Sequence[str], count: int) -> str:
    """Return a message that counts a dataset's unreadable radiographs among `count`, with the first few reasons."""
    return f"{len(faults)} of {count} images cannot be read:\n  " + "\n  ".join(faults[:MAX_LISTED_PATHS])


def _read(records: Sequence[MuraRecord], convert: Callable[[Radiograph], T]) -> list[T]:
    def read(record: MuraRecord) -> T | str:
        try:
            return convert(read_radiograph(record.file))
        except (InputError, OSError) as error:
            return f"{record.path}: {error}"

    results = list(tqdm(prepare_ahead(read, records), total=len(records), desc="reading images", unit="img"))
    faults = [result for result in results if isinstance(result, str)]
    if faults:
        raise DatasetError(describe_unreadable(faults, len(records)))
    return [result for result in results if not isinstance(result, str)]
