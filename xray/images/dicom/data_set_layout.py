"""Checks the structure of a DICOM data set before a parser reads it (PS3.5, chapter 7 and annex A.4).

A parser keeps one of two equal tags, follows sequences to any depth, and accepts the rest of a truncated file. Such
a file is refused here, so that all programs that read an accepted file read the same values.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from xray.errors import UnreadableImageError
from xray.images.dicom.layout_errors import (
    SEND_WHOLE,
    TruncatedError,
    describe_tag,
    refuse_corrupt,
    refuse_order,
    refuse_truncated,
)

PIXEL_DATA = 0x7FE00010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
DELIMITERS_GROUP = 0xFFFE
UNDEFINED_LENGTH = 0xFFFFFFFF
"""The length of a value that ends with a delimiter."""
MAX_ELEMENTS = 20_000
"""Limit on the tags of a file, including those in sequences; a radiograph has a few hundred."""
MAX_DEPTH = 16
"""Limit on the nesting of sequences; a radiograph has three levels."""
MAX_HEADER_BYTES = 16 << 20
"""Limit on the size of the tags before the pixels, in bytes: 16 MiB."""
FIRST_GROUP = 0x0008
"""The lowest group of the standard tags in a data set."""
LONG_VRS = frozenset(vr.value.encode() for vr in EXPLICIT_VR_LENGTH_32)
"""The VRs whose length takes 4 bytes instead of 2."""


@dataclass(frozen=True)
class EncodedPixels:
    """The undecoded value of a data set's Pixel Data.

    Attributes:
        pieces: the whole value of a native image, or the fragments of an encapsulated one, without the offset table.
    """

    pieces: tuple[bytes, ...]
    vr: str | None
    encapsulated: bool


@dataclass(frozen=True)
class DataSetLayout:
    """The layout of a DICOM data set: its tags and pixels, in the order of the file.

    Attributes:
        tags: the tags before the pixels.
        end: the position in bytes at which these tags end.
    """

    tags: tuple[int, ...]
    end: int
    pixels: EncodedPixels | None


class _Head(NamedTuple):
    tag: int
    vr: bytes | None
    length: int
    value_start: int


def read_layout(data: bytes, *, implicit: bool, little: bool, last_tag: int | None = None) -> DataSetLayout:
    """Read the layout of a DICOM data set up to its end, or up to the first tag above `last_tag`.

    Bytes after the pixels are ignored if they are not tags.

    Args:
        implicit: whether the transfer syntax has implicit VRs.
        little: whether its numbers are little-endian.

    Raises:
        UnreadableImageError: the data set is truncated or corrupt; a tag is repeated or out of order; there are more
            than `MAX_ELEMENTS` tags, `MAX_DEPTH` levels of sequences, or `MAX_HEADER_BYTES` bytes before the pixels.
    """
    try:
        return _Walker(data, little).read_top_level(implicit, last_tag)
    except TruncatedError as error:
        raise UnreadableImageError(str(error)) from None


def require_tag_order(data: bytes, *, implicit: bool, little: bool) -> None:
    """Check the order of a data set's tags: raise the errors of `read_layout`, except for truncated data."""
    with suppress(TruncatedError):
        _Walker(data, little).read_top_level(implicit, None)


class _Walker:
    """Walks over the elements of a data set. Positions are in bytes from the start of the data."""

    def __init__(self, data: bytes, little: bool) -> None:
        order = "<" if little else ">"
        self._data = data
        self._elements = 0
        self._short, self._long, self._tag = (struct.Struct(order + form) for form in ("HH2sH", "L", "HH"))

    def read_top_level(self, implicit: bool, last_tag: int | None) -> DataSetLayout:
        """Read the elements that are not nested, and check the nested ones."""
        position = 0
        tags = list[int]()
        previous = -1
        implicit = self._is_implicit(position, implicit, nested=False)
        while position < len(self._data):
            head = self._read_head(position, implicit)
            if head.tag <= previous:
                refuse_order(head.tag, twice=head.tag in tags)
            if last_tag is not None and head.tag > last_tag:
                break
            if position > MAX_HEADER_BYTES:
                raise UnreadableImageError(
                    f"The tags before the pixels take more than {MAX_HEADER_BYTES >> 20} MiB; "
                    "export the radiograph alone."
                )
            if head.tag == PIXEL_DATA:
                pixels, end = self._read_pixels(head)
                self._require_order_after(end, implicit, [*tags, PIXEL_DATA])
                return DataSetLayout(tuple(tags), position, pixels)
            tags.append(head.tag)
            previous, position = head.tag, self._skip_element(head, implicit, 1)
        return DataSetLayout(tuple(tags), position, None)

    def _skip_element(self, head: _Head, implicit: bool, depth: int) -> int:
        """Check an element with its nested elements, and return the position after it."""
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise UnreadableImageError(f"The file has more than {MAX_ELEMENTS:,} tags; export the radiograph alone.")
        if head.tag >> 16 == DELIMITERS_GROUP:
            refuse_corrupt(head.tag)
        if _is_sequence(head):
            return self._skip_sequence(head, implicit, depth)
        if head.length == UNDEFINED_LENGTH:
            *_, delimiter = self._fragments(head)
            return delimiter.value_start
        return self._end_of_value(head, len(self._data))

    def _skip_sequence(self, head: _Head, implicit: bool, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise UnreadableImageError(
                f"{describe_tag(head.tag)} is nested more than {MAX_DEPTH} sequences deep; export the radiograph alone."
            )
        end = len(self._data) if head.length == UNDEFINED_LENGTH else self._end_of_value(head, len(self._data))
        position = head.value_start
        while position < end:
            item = self._read_item_head(position, head.tag)
            if item.tag == SEQUENCE_END and head.length == UNDEFINED_LENGTH:
                return item.value_start
            if item.tag != ITEM:
                refuse_corrupt(head.tag)
            position = self._skip_item(item, end, implicit, depth)
        if head.length == UNDEFINED_LENGTH:
            refuse_truncated(head.tag)
        if position != end:
            refuse_corrupt(head.tag)
        return end

    def _skip_item(self, item: _Head, end_of_parent: int, implicit: bool, depth: int) -> int:
        """Check the data set of an item, and return the position after it."""
        end = end_of_parent if item.length == UNDEFINED_LENGTH else self._end_of_value(item, end_of_parent)
        self._elements += 1
        position = item.value_start
        seen = set[int]()
        implicit = self._is_implicit(position, implicit, nested=True)
        while position < end:
            head = self._read_head(position, implicit)
            if head.tag == ITEM_END and item.length == UNDEFINED_LENGTH:
                return head.value_start
            if head.tag in seen:
                refuse_order(head.tag, twice=True)
            seen.add(head.tag)
            position = self._skip_element(head, implicit, depth + 1)
        if item.length == UNDEFINED_LENGTH or position != end:
            refuse_corrupt(item.tag)
        return end

    def _read_pixels(self, head: _Head) -> tuple[EncodedPixels, int]:
        vr = head.vr.decode("ascii") if head.vr else None
        if head.length != UNDEFINED_LENGTH:
            end = self._end_of_value(head, len(self._data))
            return EncodedPixels((self._data[head.value_start : end],), vr, False), end
        *items, delimiter = self._fragments(head)
        pieces = (self._data[item.value_start : item.value_start + item.length] for item in items[1:])
        return EncodedPixels(tuple(pieces), vr, True), delimiter.value_start

    def _fragments(self, head: _Head) -> Iterator[_Head]:
        """Yield the items of an encapsulated value, and the delimiter after them.

        The delimiter may be missing or truncated at the end of the file, because the image is complete without it.
        """
        end = len(self._data)
        position = head.value_start
        while True:
            if end - position < 8 and self._tag.pack(*divmod(SEQUENCE_END, 1 << 16)).startswith(
                self._data[position : position + 4]
            ):
                yield _Head(SEQUENCE_END, None, 0, end)
                return
            item = self._read_item_head(position, head.tag)
            if item.tag == SEQUENCE_END:
                yield item
                return
            if item.tag != ITEM or item.length == UNDEFINED_LENGTH:
                refuse_corrupt(head.tag)
            if item.value_start + item.length > end:
                refuse_truncated(head.tag)
            yield item
            position = item.value_start + item.length

    def _require_order_after(self, position: int, implicit: bool, tags: list[int]) -> None:
        """Refuse a standard tag after the pixels that belongs before them; other bytes are padding."""
        while position + 8 <= len(self._data):
            try:
                head = self._read_head(position, implicit)
            except UnreadableImageError:
                return
            if head.tag <= tags[-1]:
                if head.tag >> 16 >= FIRST_GROUP and dictionary_has_tag(head.tag) and self._fits(head):
                    refuse_order(head.tag, twice=head.tag in tags)
                return
            if head.length == UNDEFINED_LENGTH or not self._fits(head):
                return
            tags.append(head.tag)
            position = head.value_start + head.length

    def _fits(self, head: _Head) -> bool:
        return head.length == UNDEFINED_LENGTH or head.value_start + head.length <= len(self._data)

    def _end_of_value(self, head: _Head, end_of_parent: int) -> int:
        """Return the position at which a value ends."""
        end = head.value_start + head.length
        if end > len(self._data):
            refuse_truncated(head.tag)
        if end > end_of_parent:
            refuse_corrupt(head.tag)
        return end

    def _read_head(self, position: int, implicit: bool) -> _Head:
        if len(self._data) < position + 8:
            raise TruncatedError(f"The DICOM file is truncated: it ends within a tag; {SEND_WHOLE}.")
        group, element, vr, length = self._short.unpack_from(self._data, position)
        tag = group << 16 | element
        if implicit or not b"AA" <= vr <= b"ZZ":  # some writers switch to implicit VR in the middle of a file
            return _Head(tag, None, self._long.unpack_from(self._data, position + 4)[0], position + 8)
        if vr not in LONG_VRS:
            return _Head(tag, vr, length, position + 8)
        if len(self._data) < position + 12:
            refuse_truncated(tag)
        return _Head(tag, vr, self._long.unpack_from(self._data, position + 8)[0], position + 12)

    def _read_item_head(self, position: int, owner: int) -> _Head:
        """Read the head of an item or a delimiter, which have no VR."""
        if len(self._data) < position + 8:
            refuse_truncated(owner)
        group, element = self._tag.unpack_from(self._data, position)
        return _Head(group << 16 | element, None, self._long.unpack_from(self._data, position + 4)[0], position + 8)

    def _is_implicit(self, position: int, announced: bool, nested: bool) -> bool:
        """Return whether VRs are implicit, by the first tag as in pydicom: some files have a wrong transfer syntax."""
        vr = self._data[position + 4 : position + 6]
        if (nested and announced) or len(vr) < 2:
            return announced
        return not all(0x40 < letter < 0x5B for letter in vr)


def _is_sequence(head: _Head) -> bool:
    if head.vr == b"SQ":
        return True
    if head.vr in (None, b"UN"):
        known = dictionary_VR(head.tag) if dictionary_has_tag(head.tag) else None
        return known == "SQ" or (known is None and head.length == UNDEFINED_LENGTH)
    return False
