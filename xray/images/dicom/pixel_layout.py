"""Goes over the tags of a DICOM data set before a parser reads them.

A parser keeps one of two equal tags, follows sequences as deep as they go, and takes what is left of a file that was
cut short. Here such a file is refused, so that everybody who reads it reads the same. PS3.5 chapter 7, annex A.4.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from pydicom.datadict import dictionary_description, dictionary_has_tag, dictionary_VR
from pydicom.tag import Tag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from xray.errors import UnreadableImageError

PIXEL_DATA = 0x7FE00010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
DELIMITERS_GROUP = 0xFFFE
UNDEFINED = 0xFFFFFFFF
"""A length that a delimiter ends."""
MAX_ELEMENTS = 20_000
"""Tags of a file, those in sequences included; a radiograph has a few hundred."""
MAX_DEPTH = 16
"""Sequences within sequences; a radiograph has three."""
MAX_HEADER = 16 << 20
"""Bytes of tags before the pixels."""
FIRST_GROUP = 0x0008
"""Of a data set's standard tags."""
LONG_VRS = frozenset(vr.value.encode() for vr in EXPLICIT_VR_LENGTH_32)
SEND_WHOLE = "export it again and check that the whole file is sent"


@dataclass(frozen=True)
class Pixels:
    """The value of Pixel Data, still encoded.

    Attributes:
        pieces: one for a native image, otherwise the fragments, without the offset table.
    """

    pieces: tuple[bytes, ...]
    vr: str | None
    encapsulated: bool


@dataclass(frozen=True)
class Layout:
    """What a data set holds, in the order of the file.

    Attributes:
        tags: those before the pixels.
        end: where these end, in bytes from the start of the data.
    """

    tags: tuple[int, ...]
    end: int
    pixels: Pixels | None


class _CutError(UnreadableImageError):
    """The data end too early."""


class _Head(NamedTuple):
    tag: int
    vr: bytes | None
    length: int
    value: int


def layout_of(data: bytes, *, implicit: bool, little: bool, last: int | None = None) -> Layout:
    """Go over a data set to its end, or to the first tag beyond `last`.

    Bytes behind the pixels that are no tags are left alone.

    Raises:
        UnreadableImageError: cut short or corrupt; a tag that stands twice, or behind a later one; more than
            `MAX_ELEMENTS` tags, `MAX_DEPTH` levels of sequences or `MAX_HEADER` bytes before the pixels.
    """
    try:
        return _Walk(data, little).top(implicit, last)
    except _CutError as error:
        raise UnreadableImageError(str(error)) from None


def require_order(data: bytes, *, implicit: bool, little: bool) -> None:
    """Refuse what `layout_of` refuses, but for data that were cut short."""
    with suppress(_CutError):
        _Walk(data, little).top(implicit, None)


def described(tag: int) -> str:
    """`(0008,0060) Modality`, or the number alone of a tag that the standard does not have."""
    return f"{Tag(tag)} {dictionary_description(tag)}" if dictionary_has_tag(tag) else str(Tag(tag))


class _Walk:
    def __init__(self, data: bytes, little: bool) -> None:
        order = "<" if little else ">"
        self._data, self._elements = data, 0
        self._short, self._long, self._tag = (struct.Struct(order + form) for form in ("HH2sH", "L", "HH"))

    def top(self, implicit: bool, last: int | None) -> Layout:
        place, tags, previous = 0, list[int](), -1
        implicit = self._is_implicit(place, implicit, nested=False)
        while place < len(self._data):
            head = self._head(place, implicit)
            if head.tag <= previous:
                _refuse_order(head.tag, twice=head.tag in tags)
            if last is not None and head.tag > last:
                break
            if place > MAX_HEADER:
                raise UnreadableImageError(
                    f"The tags before the pixels take more than {MAX_HEADER >> 20} MiB; export the radiograph alone."
                )
            if head.tag == PIXEL_DATA:
                pixels, behind = self._pixels(head)
                self._require_order_behind(behind, implicit, [*tags, PIXEL_DATA])
                return Layout(tuple(tags), place, pixels)
            tags.append(head.tag)
            previous, place = head.tag, self._behind(head, implicit, 1)
        return Layout(tuple(tags), place, None)

    def _behind(self, head: _Head, implicit: bool, depth: int) -> int:
        """The place behind an element; a sequence is gone over."""
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise UnreadableImageError(f"The file holds more than {MAX_ELEMENTS:,} tags; export the radiograph alone.")
        if head.tag >> 16 == DELIMITERS_GROUP:
            _refuse_corrupt(head.tag)
        if _is_sequence(head):
            return self._sequence(head, implicit, depth)
        if head.length == UNDEFINED:
            *_, end = self._items(head, len(self._data))
            return end.value
        return self._within(head, len(self._data))

    def _sequence(self, head: _Head, implicit: bool, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise UnreadableImageError(
                f"{described(head.tag)} lies more than {MAX_DEPTH} sequences deep; export the radiograph alone."
            )
        end = len(self._data) if head.length == UNDEFINED else self._within(head, len(self._data))
        place = head.value
        while place < end:
            item = self._delimiter(place, head.tag)
            if item.tag == SEQUENCE_END and head.length == UNDEFINED:
                return item.value
            if item.tag != ITEM:
                _refuse_corrupt(head.tag)
            place = self._item(item, end, implicit, depth)
        if head.length == UNDEFINED:
            _refuse_cut(head.tag)
        if place != end:
            _refuse_corrupt(head.tag)
        return end

    def _item(self, item: _Head, limit: int, implicit: bool, depth: int) -> int:
        """The place behind an item's data set."""
        end = limit if item.length == UNDEFINED else self._within(item, limit)
        self._elements += 1
        place, seen = item.value, set[int]()
        implicit = self._is_implicit(place, implicit, nested=True)
        while place < end:
            head = self._head(place, implicit)
            if head.tag == ITEM_END and item.length == UNDEFINED:
                return head.value
            if head.tag in seen:
                _refuse_order(head.tag, twice=True)
            seen.add(head.tag)
            place = self._behind(head, implicit, depth + 1)
        if item.length == UNDEFINED or place != end:
            _refuse_corrupt(item.tag)
        return end

    def _pixels(self, head: _Head) -> tuple[Pixels, int]:
        vr = head.vr.decode("ascii") if head.vr else None
        if head.length != UNDEFINED:
            end = self._within(head, len(self._data))
            return Pixels((self._data[head.value : end],), vr, False), end
        *items, last = self._items(head, len(self._data))
        pieces = (self._data[item.value : item.value + item.length] for item in items[1:])
        return Pixels(tuple(pieces), vr, True), last.value

    def _items(self, head: _Head, end: int) -> Iterator[_Head]:
        """The fragments of an encapsulated value, and the delimiter behind them.

        A file that ends with its last fragment has lost nothing but that delimiter.
        """
        place = head.value
        while True:
            if end - place < 8 and self._tag.pack(*divmod(SEQUENCE_END, 1 << 16)).startswith(
                self._data[place : place + 4]
            ):
                yield _Head(SEQUENCE_END, None, 0, end)
                return
            item = self._delimiter(place, head.tag)
            if item.tag == SEQUENCE_END:
                yield item
                return
            if item.tag != ITEM or item.length == UNDEFINED:
                _refuse_corrupt(head.tag)
            if item.value + item.length > end:
                _refuse_cut(head.tag)
            yield item
            place = item.value + item.length

    def _require_order_behind(self, place: int, implicit: bool, tags: list[int]) -> None:
        """Refuse a tag of the standard behind the pixels that belongs before them; anything else is padding."""
        while place + 8 <= len(self._data):
            try:
                head = self._head(place, implicit)
            except UnreadableImageError:
                return
            if head.tag <= tags[-1]:
                if head.tag >> 16 >= FIRST_GROUP and dictionary_has_tag(head.tag) and self._fits(head):
                    _refuse_order(head.tag, twice=head.tag in tags)
                return
            if head.length == UNDEFINED or not self._fits(head):
                return
            tags.append(head.tag)
            place = head.value + head.length

    def _fits(self, head: _Head) -> bool:
        return head.length == UNDEFINED or head.value + head.length <= len(self._data)

    def _within(self, head: _Head, limit: int) -> int:
        """Where a value ends."""
        end = head.value + head.length
        if end > len(self._data):
            _refuse_cut(head.tag)
        if end > limit:
            _refuse_corrupt(head.tag)
        return end

    def _head(self, place: int, implicit: bool) -> _Head:
        if len(self._data) < place + 8:
            raise _CutError(f"The DICOM file is truncated: it ends within a tag; {SEND_WHOLE}.")
        group, element, vr, length = self._short.unpack_from(self._data, place)
        tag = group << 16 | element
        if implicit or not b"AA" <= vr <= b"ZZ":  # some writers change to implicit ones on the way
            return _Head(tag, None, self._long.unpack_from(self._data, place + 4)[0], place + 8)
        if vr not in LONG_VRS:
            return _Head(tag, vr, length, place + 8)
        if len(self._data) < place + 12:
            _refuse_cut(tag)
        return _Head(tag, vr, self._long.unpack_from(self._data, place + 8)[0], place + 12)

    def _delimiter(self, place: int, owner: int) -> _Head:
        """An item's head, which has no VR."""
        if len(self._data) < place + 8:
            _refuse_cut(owner)
        group, element = self._tag.unpack_from(self._data, place)
        return _Head(group << 16 | element, None, self._long.unpack_from(self._data, place + 4)[0], place + 8)

    def _is_implicit(self, place: int, announced: bool, nested: bool) -> bool:
        """As pydicom decides it, by the first tag; what announces it is wrong in some files."""
        vr = self._data[place + 4 : place + 6]
        if (nested and announced) or len(vr) < 2:
            return announced
        return not all(0x40 < letter < 0x5B for letter in vr)


def _is_sequence(head: _Head) -> bool:
    if head.vr == b"SQ":
        return True
    if head.vr in (None, b"UN"):
        known = dictionary_VR(head.tag) if dictionary_has_tag(head.tag) else None
        return known == "SQ" or (known is None and head.length == UNDEFINED)
    return False


def _refuse_cut(tag: int) -> NoReturn:
    raise _CutError(f"The DICOM file is truncated: it ends within {described(tag)}; {SEND_WHOLE}.")


def _refuse_corrupt(tag: int) -> NoReturn:
    raise UnreadableImageError(f"The DICOM file is corrupt: {described(tag)} cannot be read; {SEND_WHOLE}.")


def _refuse_order(tag: int, twice: bool) -> NoReturn:
    raise UnreadableImageError(
        f"{described(tag)} stands {'twice in the file' if twice else 'behind a later tag'}; export the file again."
    )
