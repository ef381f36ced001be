"""Look-up tables of a DICOM file, which turn one value into another (PS3.3 C.11.1.1)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from xray.errors import UnreadableImageError

FloatArray = npt.NDArray[np.float64]
MAX_ENTRIES = 1 << 16
WORD = 0xFFFF


@dataclass(frozen=True)
class LookupTable:
    """Values below `first` take its first entry, those beyond its end the last."""

    first: int
    entries: FloatArray

    @property
    def white(self) -> float:
        """The largest value of the bits that the entries really use.

        What the descriptor says of these bits is wrong in both directions in files of some vendors. dcmtk's
        `--ignore-vlut-depth` decides alike.
        """
        return float((1 << max(1, int(self.entries.max()).bit_length())) - 1)

    def __call__(self, values_V: FloatArray) -> FloatArray:
        return self.entries[np.clip(values_V - self.first, 0, len(self.entries) - 1).astype(np.intp)]


def lookup_table(item: Dataset, tag: str, values_V: FloatArray) -> LookupTable:
    """The table of a sequence's item, for such values.

    Raises:
        UnreadableImageError: there is none in the item; `tag` names the sequence.
    """
    try:
        count, first, bits = (int(each) & WORD for each in item.LUTDescriptor)
        count = count or MAX_ENTRIES
        entries = _entries(item, count)
    except Exception as error:  # whatever pydicom and NumPy raise on a table that is not there or not one
        raise UnreadableImageError(f"{tag} holds no look-up table; export the file again.") from error
    if not 8 <= bits <= 16:
        raise UnreadableImageError(f"{tag} announces {bits} bits; look-up tables have 8 to 16.")
    if len(entries) < count:
        raise UnreadableImageError(
            f"{tag} holds {len(entries):,} entries where its descriptor says {count:,}; export the file again."
        )
    return LookupTable(_first(first, count, values_V), entries.astype(np.float64))


def _first(first: int, count: int, values_V: FloatArray) -> int:
    """The first value that the table maps, which has the sign that the values have.

    Where the tag was written with the other sign, the table would miss all values: the reading that meets more of them
    is the one that is meant.
    """
    lowest, highest = float(values_V.min()), float(values_V.max())

    def met(start: int) -> float:
        return min(start + count - 1, highest) - max(start, lowest)

    as_signed = first - (1 << 16) if first >> 15 else first
    usual, other = (as_signed, first) if lowest < 0 else (first, as_signed)
    return other if met(other) > max(met(usual), 0) else usual


def _entries(item: Dataset, count: int) -> npt.NDArray[Any]:
    """As written, which is as words or, of 8 bits, as bytes in words."""
    data = item.LUTData
    if not isinstance(data, bytes):
        return (np.atleast_1d(np.asarray(data, np.int64)) & WORD)[:count]
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if item.original_encoding[1] is not False else ">u2")
    if len(words) < count and len(data) in (count, count + 1):
        return (words.astype("<u2").view(np.uint8) if len(data) % 2 == 0 else np.frombuffer(data, np.uint8))[:count]
    return words[:count]
