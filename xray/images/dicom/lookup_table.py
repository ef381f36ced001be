"""Reads and applies the look-up tables of a DICOM file (PS3.3 C.11.1.1)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from xray.errors import UnreadableImageError

FloatArray = npt.NDArray[np.float64]
MAX_ENTRIES = 1 << 16
"""Number of entries of a table whose descriptor says 0."""
WORD = 0xFFFF
"""Mask of an unsigned 16-bit word."""


@dataclass(frozen=True)
class LookupTable:
    """A DICOM look-up table for values from `first` on; values below or beyond it map to its first or last entry."""

    first: int
    entries: FloatArray

    @property
    def white(self) -> float:
        """The largest value with as many bits as the look-up table's entries use.

        In files of some vendors the number of bits in the descriptor is too large or too small. dcmtk does the same
        with `--ignore-vlut-depth`.
        """
        return float((1 << max(1, int(self.entries.max()).bit_length())) - 1)

    def __call__(self, values_V: FloatArray) -> FloatArray:
        return self.entries[np.clip(values_V - self.first, 0, len(self.entries) - 1).astype(np.intp)]


def read_lookup_table(item: Dataset, tag: str, values_V: FloatArray) -> LookupTable:
    """Read the look-up table of an item of a DICOM sequence.

    Args:
        tag: name of the sequence in error messages.
        values_V: the values to map, which decide the sign of an ambiguous first value.

    Raises:
        UnreadableImageError: the item has no complete table.
    """
    try:
        count, first, bits = (int(each) & WORD for each in item.LUTDescriptor)
        count = count or MAX_ENTRIES
        entries = _read_entries(item, count)
    except Exception as error:  # pydicom and NumPy raise almost any type for a missing or damaged table
        raise UnreadableImageError(f"{tag} holds no look-up table; export the file again.") from error
    if not 8 <= bits <= 16:
        raise UnreadableImageError(f"{tag} announces {bits} bits; look-up tables have 8 to 16.")
    if len(entries) < count:
        raise UnreadableImageError(
            f"{tag} has {len(entries):,} entries where its descriptor says {count:,}; export the file again."
        )
    return LookupTable(_signed_first(first, count, values_V), entries.astype(np.float64))


def _signed_first(first: int, count: int, values_V: FloatArray) -> int:
    """Return the first value that the table maps, signed if the values are.

    Some files have a first value of the wrong signedness, with which the table would cover none of the values, so the
    interpretation that covers more values is used.
    """
    lowest, highest = float(values_V.min()), float(values_V.max())

    def covered(start: int) -> float:
        return min(start + count - 1, highest) - max(start, lowest)

    as_signed = first - (1 << 16) if first >> 15 else first
    usual, other = (as_signed, first) if lowest < 0 else (first, as_signed)
    return other if covered(other) > max(covered(usual), 0) else usual


def _read_entries(item: Dataset, count: int) -> npt.NDArray[Any]:
    """Return the entries, which are stored as words or, with 8 bits, as bytes."""
    data = item.LUTData
    if not isinstance(data, bytes):
        return (np.atleast_1d(np.asarray(data, np.int64)) & WORD)[:count]
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if item.original_encoding[1] is not False else ">u2")
    if len(words) < count and len(data) in (count, count + 1):
        return (words.astype("<u2").view(np.uint8) if len(data) % 2 == 0 else np.frombuffer(data, np.uint8))[:count]
    return words[:count]
