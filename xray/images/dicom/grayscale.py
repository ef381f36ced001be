"""Converts the stored values of a DICOM image to the 8-bit gray that a viewer shows (PS3.3 C.7.6.3, C.11).

    stored values -> modality LUT -> VOI LUT or window -> 8 bits -> inverted for MONOCHROME1

Every step maps single values, so the steps are computed once for each possible stored value, and the image is mapped
with the resulting table. This takes 19 ms for 3000 x 2500 pixels instead of 236 ms.

Legend: H, W the image; V the possible stored values.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from xray.errors import UnreadableImageError
from xray.images.dicom.lookup_table import FloatArray, read_lookup_table
from xray.images.dicom.values import get_numbers, get_value
from xray.images.levels import BITS, significant_levels
from xray.images.radiograph import PixelArray

WHITE = 255.0
"""The brightest gray level."""
BoolArray = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class StoredBits:
    """The position of a DICOM image's stored gray value in a word.

    Attributes:
        stored: number of bits of a value.
        high_bit: position of its highest bit, counted from 0.
        lowest: the smallest value; negative if values are signed.
    """

    stored: int
    high_bit: int
    lowest: int

    @property
    def values_V(self) -> FloatArray:
        """All stored gray values that the bits can hold, in ascending order."""
        return np.arange(self.lowest, self.lowest + (1 << self.stored), dtype=np.float64)

    def indices(self, words_HW: npt.NDArray[Any]) -> Indices:
        """Return the index in `values_V` of each word's stored gray value, (H, W); other bits are ignored."""
        raised = words_HW.astype(np.int32) >> (self.high_bit + 1 - self.stored)
        return ((raised - self.lowest) & ((1 << self.stored) - 1)).astype(np.uint16)


def has_window(header: Dataset) -> bool:
    """Return whether a DICOM file's tags have a window or VOI LUT for displaying its gray values."""
    return bool(get_value(header, "VOILUTSequence")) or _read_window(header) is not None


def to_gray(
    words_HW: npt.NDArray[Any], bits: StoredBits, header: Dataset, open_HW: BoolArray | None = None
) -> PixelArray:
    """Convert a DICOM file's stored words to the gray that a viewer shows, (H, W) uint8; padding is black.

    Without a window or VOI LUT, the gray levels are those of the bits that the visible pixels use: neither padding nor
    pixels outside `open_HW` count.

    Raises:
        UnreadableImageError: a look-up table is damaged, or the rescale tags are not numbers.
    """
    indices_HW = bits.indices(words_HW)
    modality_V = _apply_modality(bits.values_V, header)
    padding_HW = _find_padding(words_HW, indices_HW, bits, header)
    if has_window(header):
        table_V = _apply_voi(modality_V, header)
    else:
        shown_HW = ~padding_HW if open_HW is None else ~padding_HW & open_HW
        table_V = _choose_levels(modality_V, shown_HW, indices_HW, bits, header)
    if _is_inverted(header):
        table_V = WHITE - table_V
    gray_HW = np.clip(np.rint(table_V), 0, WHITE).astype(np.uint8)[indices_HW]
    gray_HW[padding_HW] = 0
    return gray_HW


def _is_inverted(header: Dataset) -> bool:
    """Return whether to invert. MONOCHROME1 and the shape INVERSE mean the same, so both together invert only once."""
    asked = header.PhotometricInterpretation, get_value(header, "PresentationLUTShape")
    return "MONOCHROME1" in asked or "INVERSE" in asked


def _apply_modality(values_V: FloatArray, header: Dataset) -> FloatArray:
    if sequence := get_value(header, "ModalityLUTSequence"):
        return read_lookup_table(sequence[0], "(0028,3000) Modality LUT Sequence", values_V)(values_V)
    slope, intercept = _read_number(header, "RescaleSlope", 1.0), _read_number(header, "RescaleIntercept", 0.0)
    if not np.isfinite((slope, intercept)).all():
        raise UnreadableImageError(
            "(0028,1053) Rescale Slope or (0028,1052) Rescale Intercept is not a usable number; export the file again."
        )
    if slope == 0:  # an error, because it leaves one gray level; dcmtk does not rescale either
        return values_V
    return values_V * slope + intercept


def _apply_voi(modality_V: FloatArray, header: Dataset) -> FloatArray:
    """Map to the range 0 to `WHITE`. A look-up table has priority over windows; the first of several is used."""
    if sequence := get_value(header, "VOILUTSequence"):
        lookup = read_lookup_table(sequence[0], "(0028,3010) VOI LUT Sequence", modality_V)
        return lookup(np.rint(modality_V)) / lookup.white * WHITE
    window = _read_window(header)
    assert window is not None, "the caller has checked that there is one"
    center, width = window
    function = get_value(header, "VOILUTFunction") or "LINEAR"
    if function == "SIGMOID":
        # Clip, because exp would overflow; the curve is flat long before that.
        return WHITE / (1 + np.exp(np.clip(-4 * (modality_V - center) / width, -700, 700)))
    # LINEAR, the default, is defined for whole values. A width below 1 occurs in rescaled images and is exact.
    if function != "LINEAR_EXACT" and width >= 1:
        center, width = center - 0.5, width - 1
    if width == 0:
        return np.where(modality_V > center, WHITE, 0.0)
    return np.clip((modality_V - center) / width + 0.5, 0, 1) * WHITE


def _read_window(header: Dataset) -> tuple[float, float] | None:
    """Return center and width of the first valid window; None if there is none."""
    for center, width in zip(get_numbers(header, "WindowCenter"), get_numbers(header, "WindowWidth"), strict=False):
        if np.isfinite((center, width)).all() and width >= np.finfo(float).tiny:
            return center, width
    return None


def _choose_levels(
    modality_V: FloatArray, shown_HW: BoolArray, indices_HW: Indices, bits: StoredBits, header: Dataset
) -> FloatArray:
    """Map to the range 0 to `WHITE` by the significant bits of the visible gray levels."""
    has_table = bool(get_value(header, "ModalityLUTSequence"))
    # The levels are the entries of a table. A rescaling can only reverse the order of the levels.
    levels_V = (modality_V if has_table else bits.values_V).astype(np.int64)
    raised_V = (levels_V - min(0, int(levels_V.min()))).astype(np.uint32)
    gray_V = significant_levels(raised_V[indices_HW], shown_HW)(raised_V).astype(np.float64)
    if bits.stored < BITS and not has_table:
        gray_V = (raised_V << (BITS - bits.stored)).astype(np.float64)
    return WHITE - gray_V if not has_table and modality_V[-1] < modality_V[0] else gray_V


def _find_padding(words_HW: npt.NDArray[Any], indices_HW: Indices, bits: StoredBits, header: Dataset) -> BoolArray:
    """Return which pixels are padding, (H, W) (PS3.3 C.7.5.1.1.2)."""
    value, limit = (_read_integer(header, keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None:
        return np.zeros(indices_HW.shape, bool)
    count = 1 << bits.stored
    ends = sorted(_correct_sign(each, bits) - bits.lowest for each in (value, value if limit is None else limit))
    if limit is None and not 0 <= ends[0] < count:  # the value uses bits of the word beyond the stored bits
        word_bits = 8 * words_HW.dtype.itemsize
        return np.asarray((words_HW.astype(np.int64) - value) & ((1 << min(word_bits, 16)) - 1) == 0)
    return np.asarray((indices_HW >= max(ends[0], 0)) & (indices_HW <= min(ends[1], count - 1)))


def _correct_sign(value: int, bits: StoredBits) -> int:
    """Correct a value that was written with the wrong signedness."""
    if bits.lowest < 0 and value > -bits.lowest - 1:
        return value - (1 << 16)
    return value & 0xFFFF if bits.lowest == 0 else value


def _read_integer(header: Dataset, keyword: str) -> int | None:
    numbers = get_numbers(header, keyword)
    return int(numbers[0]) if numbers and np.isfinite(numbers[0]) else None


def _read_number(header: Dataset, keyword: str, default: float) -> float:
    """Return the first value of a tag, or `default` if the tag is missing."""
    numbers = get_numbers(header, keyword)
    return numbers[0] if numbers else default
