"""A DICOM file that two parsers would read differently, or whose tags have no limit, is refused with the reason."""

import struct
import time
from collections.abc import Callable

import pytest
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from tests.dicom_files import NATIVE, SEQUENCE_END, UNDEFINED_PIXELS, data_set, dicom, with_data_set
from tests.phantoms import draw_phantom
from xray.errors import InputError, UnreadableImageError, UnsupportedFormatError
from xray.images.dicom.data_set_layout import MAX_DEPTH, MAX_ELEMENTS
from xray.images.dicom.decode import decode_dicom, identify, read_header

Reader = Callable[[bytes], object]
PHANTOM = draw_phantom(seed=5)
STUDY, PATIENT, ROWS, OTHER_IDS = 0x0020000D, 0x00100020, 0x00280010, 0x00101002
COMPRESSED = (JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)


def element(tag: int, vr: str, value: bytes, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    order, long = (">" if syntax == ExplicitVRBigEndian else "<"), vr in ("SQ", "OB", "UN")
    group, number = divmod(tag, 1 << 16)
    if syntax == ImplicitVRLittleEndian:
        return struct.pack("<HHL", group, number, len(value)) + value
    head = struct.pack(f"{order}HH2s", group, number, vr.encode())
    return head + (struct.pack(f"{order}2xL" if long else f"{order}H", len(value))) + value


def beside(data: bytes, added: bytes, tag: int, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """A file with bytes inserted before the first tag of its data set that is above `tag`."""
    body = data_set(data)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    place = body.index(struct.pack(f"{order}HH", *divmod(tag, 1 << 16)))
    return with_data_set(data, body[:place] + added + body[place:])


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize(
    ("tag", "vr", "value", "name"),
    [(STUDY, "UI", b"1.2.840.50.1\0", "Study Instance UID"), (PATIENT, "LO", b"SECOND-ID ", "Patient ID")],
)
def test_file_of_two_studies_or_patients_is_refused_by_every_reader(
    syntax: UID, tag: int, vr: str, value: bytes, name: str
) -> None:
    twice = beside(dicom(PHANTOM, 8, syntax), element(tag, vr, value + bytes(len(value) % 2), syntax), tag, syntax)
    late = beside(dicom(PHANTOM, 8, syntax), element(tag, vr, value + bytes(len(value) % 2), syntax), ROWS, syntax)
    for data in (twice, late):
        for read in (identify, decode_dicom, read_header):
            with pytest.raises(UnreadableImageError, match=f"{name} occurs twice in the file"):
                read(data)


@pytest.mark.parametrize("read", [identify, decode_dicom, read_header])
def test_tag_behind_a_later_one_is_refused(read: Reader) -> None:
    data = beside(dicom(PHANTOM), element(0x00100040, "CS", b"F "), ROWS)
    with pytest.raises(UnreadableImageError, match=r"\(0010,0040\) Patient's Sex occurs after a later tag"):
        read(data)


@pytest.mark.parametrize("read", [identify, decode_dicom, read_header])
def test_tag_of_the_standard_behind_the_pixels_is_refused(read: Reader) -> None:
    data = dicom(PHANTOM) + element(STUDY, "UI", b"1.2.840.50.2")
    with pytest.raises(UnreadableImageError, match="Study Instance UID occurs twice"):
        read(data)
    padding = element(0xFFFCFFFC, "OB", bytes(8))
    with pytest.raises(UnreadableImageError, match="Study Instance UID occurs twice"):
        read(dicom(PHANTOM) + padding + element(STUDY, "UI", b"1.2.840.50.2"))


def test_tag_twice_within_an_item_is_refused() -> None:
    item = element(PATIENT, "LO", b"A ") * 2
    sequence = element(OTHER_IDS, "SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item)
    with pytest.raises(UnreadableImageError, match="Patient ID occurs twice"):
        decode_dicom(beside(dicom(PHANTOM), sequence, 0x00180015))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, *COMPRESSED], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize(
    "garbage",
    [bytes(1), bytes(512), b"\xff" * 64, b"AB" * 32, b"\xff\x0f" * 496, element(0xFFFCFFFC, "OB", bytes(8))],
    ids=("a zero", "zeros", "ones", "letters", "pixels", "padding"),
)
def test_garbage_behind_a_sound_file_is_ignored(syntax: UID, garbage: bytes) -> None:
    sound = dicom(PHANTOM, 8, syntax)
    assert (decode_dicom(sound + garbage).pixels == decode_dicom(sound).pixels).all()
    assert identify(sound + garbage) == identify(sound)
    assert read_header(sound + garbage) == read_header(sound)


@pytest.mark.parametrize("syntax", [*NATIVE, *COMPRESSED], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_file_cut_short_is_called_truncated(syntax: UID, share: float) -> None:
    data = dicom(PHANTOM, 8, syntax)
    with pytest.raises(UnreadableImageError, match="truncated"):
        decode_dicom(data[: int(len(data) * share)])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, *COMPRESSED], ids=lambda syntax: syntax.name)
def test_file_cut_within_its_pixels_is_still_identified(syntax: UID) -> None:
    data = dicom(PHANTOM, 8, syntax)
    assert identify(data[: len(data) * 2 // 3]) == identify(data)


@pytest.mark.parametrize("missing", [1, 4, 7, 8])
def test_file_that_lost_only_the_delimiter_behind_its_pixels_is_read(missing: int) -> None:
    data = dicom(PHANTOM, 8, JPEGLSLossless)
    assert data.endswith(SEQUENCE_END)
    assert (decode_dicom(data[:-missing]).pixels == PHANTOM).all()


def nested(depth: int, undefined: bool) -> bytes:
    value = element(PATIENT, "LO", b"x ")
    for _ in range(depth):
        if undefined:
            value = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + value + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
            value = struct.pack("<HH2s2xL", 0x10, 0x1002, b"SQ", 0xFFFFFFFF) + value + SEQUENCE_END
        else:
            value = element(OTHER_IDS, "SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value)
    return value


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("read", [identify, decode_dicom, read_header])
def test_sequences_without_end_are_refused(read: Reader, undefined: bool) -> None:
    sound = beside(dicom(PHANTOM), nested(MAX_DEPTH, undefined), 0x00180015)
    read(sound)
    for depth in (MAX_DEPTH + 1, 250, 20_000):
        with pytest.raises(UnreadableImageError, match=f"more than {MAX_DEPTH} sequences deep"):
            read(beside(dicom(PHANTOM), nested(depth, undefined), 0x00180015))


def many_tags(count: int) -> bytes:
    return b"".join(element((0x29 + 2 * (n // 0xE000) << 16) + 0x1100 + n % 0xE000, "LO", b"") for n in range(count))


def many_items(count: int) -> bytes:
    return element(OTHER_IDS, "SQ", struct.pack("<HHL", 0xFFFE, 0xE000, 0) * count)


@pytest.mark.parametrize("read", [identify, decode_dicom, read_header])
def test_hundreds_of_thousands_of_tags_are_refused_before_they_are_parsed(read: Reader) -> None:
    files = [
        beside(dicom(PHANTOM), many_tags(300_000), 0x7FE00010),
        beside(dicom(PHANTOM), many_items(300_000), 0x00180015),
        beside(dicom(PHANTOM), many_items(60_000), 0x00180015),
    ]
    for data in files:
        start = time.process_time()
        with pytest.raises(UnreadableImageError, match=f"more than {MAX_ELEMENTS:,} tags"):
            read(data)
        assert time.process_time() - start < 5


def test_a_few_thousand_private_tags_are_none_too_many() -> None:
    assert (decode_dicom(beside(dicom(PHANTOM), many_tags(5000), 0x7FE00010)).pixels == PHANTOM).all()


def test_header_larger_than_any_is_refused() -> None:
    large = element(0x00290010, "LO", b"VENDOR") + element(0x00291001, "OB", bytes(20 << 20))
    with pytest.raises(UnreadableImageError, match="more than 16 MiB"):
        decode_dicom(beside(dicom(PHANTOM), large, 0x7FE00010))


@pytest.mark.parametrize(
    ("uid", "says"),
    [
        ("1.2.840.113619.5.2", "is 1.2.840.113619.5.2, which is not supported"),
        ("1.2.276.0.50.1.2.1", "is 1.2.276.0.50.1.2.1, which is not supported"),
        ("1.2.840.10008.5.1.4.1.1.1", "is 1.2.840.10008.5.1.4.1.1.1, which is not supported"),
        ("", "is missing or empty"),
        ("not a UID", "is missing or empty"),
    ],
)
@pytest.mark.parametrize("read", [identify, decode_dicom, read_header])
def test_transfer_syntax_that_is_not_known_is_named(read: Reader, uid: str, says: str) -> None:
    data = dicom(PHANTOM)
    old = element(0x00020010, "UI", b"1.2.840.10008.1.2.1\0")
    changed = data.replace(old, element(0x00020010, "UI", uid.encode() + bytes(len(uid) % 2)))
    assert changed != data
    with pytest.raises(UnsupportedFormatError, match=rf"\(0002,0010\) Transfer Syntax UID {says}"):
        read(changed)


def test_pixels_that_are_in_fragments_where_the_syntax_has_none_are_refused() -> None:
    data = dicom(PHANTOM, 8, JPEGLSLossless)
    assert UNDEFINED_PIXELS in data
    plain = data.replace(JPEGLSLossless.encode(), ExplicitVRLittleEndian.encode().ljust(len(JPEGLSLossless), b"\0"))
    with pytest.raises(InputError, match="is in fragments, unlike"):
        decode_dicom(plain)


def test_file_that_ends_within_a_tag_of_no_standard_is_told_so_by_its_number() -> None:
    whole = beside(dicom(PHANTOM), element(0x00211001, "LO", b"0123456789"), 0x00280002)
    cut = whole[: whole.index(b"0123456789") + 4]
    with pytest.raises(UnreadableImageError, match=r"it ends within \(0021,1001\); ") as refusal:
        decode_dicom(cut)
    assert "The tag" not in str(refusal.value)
