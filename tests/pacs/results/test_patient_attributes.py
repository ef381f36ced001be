"""Results repeat the patient of their radiograph byte for byte, within limits."""

import struct
import subprocess
from pathlib import Path

import pytest
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from pacs.results.dicom_json import result_to_json
from pacs.results.patient_attributes import MAX_ITEM_TAGS, MAX_ITEMS, MAX_VALUE_BYTES
from pacs.results.rendering.render import render_results
from pacs.results.result import RadiographFinding, Source
from pacs.results.source import read_source
from tests.dicom_files import CANARY, NATIVE
from tests.pacs.raw_files import element, raw_file, raw_values, sequence
from tests.pacs.results.test_results import finding, radiograph
from tests.tools import needs
from xray.errors import UnreadableImageError
from xray.images.radiograph import MAX_PIXELS

NAME, CHARACTER_SET, SEX = "00100010", "00080005", "00100040"
OTHER_IDS = "OtherPatientIDsSequence"
UNDEFINED_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
END_OF_ITEM, END_OF_SEQUENCE = struct.pack("<HHL", 0xFFFE, 0xE00D, 0), struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
WELL_FORMED = {
    "Latin-1": (b"ISO_IR 100", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
    "UTF-8": (b"ISO_IR 192", "Müller^Jörg".encode(), "Müller^Jörg"),
    "GB18030": (b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong"),
    "GBK": (b"GBK", "Wang^XiaoDong=王^小东".encode("gbk"), "Wang^XiaoDong"),
    "Cyrillic": (b"ISO_IR 144", "Жанна".encode("iso8859-5"), "Жанна"),
    "Greek": (b"ISO_IR 126", "Διονυσιος".encode("iso8859-7"), "Διονυσιος"),
    "half-width katakana": (b"ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ".encode("shift_jis"), "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    "kanji by escapes": (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou",
    ),
    "a kanji that holds the byte of an equals sign": (
        b"\\ISO 2022 IR 87",
        b"Sho=\x1b$B=q\x1b(B",
        "Sho",
    ),
    "hangul by escapes": (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong",
    ),
    "no set and ASCII": (None, b"Test^Case", "Test^Case"),
}
"""Character set, name, and the name's alphabetic part."""
MISDECLARED = {
    "GB18030 declared as UTF-8": (b"ISO_IR 192", "王小东".encode("gb18030")),
    "Latin-1 declared as UTF-8": (b"ISO_IR 192", "Müller^Jörg".encode("latin-1")),
    "Latin-1 under no set": (None, "Müller^Jörg".encode("latin-1")),
    "UTF-8 under no set": (None, "Müller^Jörg".encode()),
    "GBK under no set": (None, "张宁宏".encode("gbk")),
    "an unknown set": (b"ISO_IR 999", "Müller^Jörg".encode("latin-1")),
    "a codec that only Python knows": (b"unicode_escape", rb"M\u00fcller" + b"\xfc"),
    "no text codec at all": (b"zip_codec", "Müller".encode()),
    "an escape that is not declared": (b"ISO 2022 IR 6\\ISO 2022 IR 87", b"Hong=\x1b$)C\xfb\xf3"),
    "an escape that is cut off": (b"\\ISO 2022 IR 87", b"Yamada=\x1b$"),
    "an escape to half a character": (b"\\ISO 2022 IR 87", b"Yamada=\x1b$B;3E\x1b(B"),
    "high bytes after an escape to ASCII": (b"\\ISO 2022 IR 149", b"Hong\x1b(B\xfb\xf3"),
    "high bytes in a set of several": (b"\\ISO 2022 IR 87\\ISO 2022 IR 159", b"Yamada=\xfb\xf3"),
    "a set that is no text": (b"\xff\xfe", "Müller".encode("latin-1")),
}
FITTING_BY_CHANCE = {
    "UTF-8 declared as Latin-1": (b"ISO_IR 100", "Müller^Jörg".encode()),
    "GBK declared as Latin-1": (b"ISO_IR 100", "张宁宏".encode("gbk")),
    "a set and its misspelling": (b"GB18030\\ISO IR 192", "王^小东".encode("gb18030")),
    "padding in the middle": (b"ISO_IR 100 ", b" Odd  ^ Name\0"),
}
NAMES = {name: each[:2] for name, each in (WELL_FORMED | MISDECLARED | FITTING_BY_CHANCE).items()}


def named_file(character_set: bytes | None, name: bytes, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    raw = {"PatientName": ("PN", name)}
    if character_set is not None:
        raw["SpecificCharacterSet"] = ("CS", character_set)
    return raw_file(raw, syntax)


def source(data: bytes) -> Source:
    return read_source(data, MAX_PIXELS)


def results(data: bytes) -> list[bytes]:
    """Return the files of the capture and the report of a radiograph."""
    drawn = radiograph()
    judged = RadiographFinding(source(data), drawn.picture, drawn.regions, drawn.probability, drawn.weight)
    return [each.data for each in render_results(finding(judged)).files]


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize(("character_set", "name"), NAMES.values(), ids=NAMES.keys())
def test_bytes_of_name_and_character_set_are_those_of_the_file(
    character_set: bytes | None, name: bytes, syntax: UID
) -> None:
    for result in results(named_file(character_set, name, syntax)):
        found = raw_values(result)
        assert found[NAME] == name.rstrip(b" \0")
        assert found.get(CHARACTER_SET) == (None if character_set is None else character_set.rstrip(b" "))


def errors(data: bytes, folder: Path) -> set[str]:
    """Return the errors that dciodvfy reports for a file."""
    file = folder / "checked.dcm"
    file.write_bytes(data)
    said = subprocess.run(["dciodvfy", file], capture_output=True, check=False).stderr.decode(errors="replace")
    return {line for line in said.splitlines() if line.startswith("Error")}


@needs("dciodvfy")
@pytest.mark.parametrize(("character_set", "name", "_"), WELL_FORMED.values(), ids=WELL_FORMED.keys())
def test_results_of_a_well_formed_name_are_valid(
    character_set: bytes | None, name: bytes, _: str, tmp_path: Path
) -> None:
    source_errors = errors(named_file(character_set, name), tmp_path)
    unknown_to_dciodvfy = character_set in (b"GBK", b"ISO_IR 13")
    for result in results(named_file(character_set, name)):
        found = errors(result, tmp_path)
        assert found <= source_errors if unknown_to_dciodvfy else found == set()


@pytest.mark.parametrize(("character_set", "name", "shown"), WELL_FORMED.values(), ids=WELL_FORMED.keys())
def test_json_has_a_name_that_fits_its_character_set(character_set: bytes | None, name: bytes, shown: str) -> None:
    for result in results(named_file(character_set, name)):
        described = result_to_json(result)
        assert described[NAME]["Value"][0]["Alphabetic"] == shown
        assert described.get(CHARACTER_SET, {"Value": ["ISO_IR 192"]})["Value"] == ["ISO_IR 192"]


def test_json_shows_a_kanji_one_of_whose_bytes_is_an_equals_sign() -> None:
    described = result_to_json(results(named_file(b"\\ISO 2022 IR 87", b"Sho=\x1b$B=q\x1b(B"))[0])
    assert described[NAME]["Value"] == [{"Alphabetic": "Sho", "Ideographic": "書"}]


@pytest.mark.parametrize(("character_set", "name"), MISDECLARED.values(), ids=MISDECLARED.keys())
def test_json_leaves_out_a_name_that_does_not_fit_and_invents_none(character_set: bytes | None, name: bytes) -> None:
    for result in results(named_file(character_set, name)):
        described = result_to_json(result)
        assert NAME not in described
        assert "\ufffd" not in str(described)
        assert described["00100020"]["Value"] == ["CANARY-4711"]


def test_every_identity_attribute_goes_back_unchanged_however_odd() -> None:
    odd = {
        "PatientName": ("PN", b"A=B=C=D=" + CANARY.encode()),
        "PatientID": ("LO", b"  ID-7\\8\xff"),
        "IssuerOfPatientID": ("LO", b"\x80\x81"),
        "PatientBirthDate": ("DA", b"1901.02.3\xfc"),
        "PatientSex": ("CS", b"m\xe4nnlich"),
        "StudyDate": ("DA", b"CANARY"),
        "StudyTime": ("TM", b"\x00\x01"),
        "StudyID": ("SH", b"\xe9"),
        "AccessionNumber": ("SH", b"A" * 40),
        "ReferringPhysicianName": ("PN", b"\x1b\x1b"),
        "StudyDescription": ("UN", b"H\xe4nde"),
        "PatientAge": ("AS", b"abc"),
    }
    for result in results(raw_file(odd)):
        found = raw_values(result)
        assert {keyword: found[f"{Tag(keyword):08X}"] for keyword in odd} == {
            keyword: value.rstrip(b" \0") for keyword, (_, value) in odd.items()
        }


def test_attribute_that_the_radiograph_lacks_is_empty_or_missing() -> None:
    for result in results(raw_file({}, PatientID=None, AccessionNumber=None)):
        found = raw_values(result)
        assert (found["00100020"], found["00080050"], found[SEX]) == (b"", b"", b"")
        assert not {CHARACTER_SET, "00100021", "00081030"} & found.keys()


@pytest.mark.parametrize(
    "raw",
    [
        {"PatientID": ("LO", b"CANARY" * MAX_VALUE_BYTES)},
        {"PatientName": ("UT", b"CANARY" * 100_000)},
        {"PatientID": ("SQ", sequence(element("PatientID", "LO", b"CANARY")))},
        {"IssuerOfPatientID": ("OB", b"CANARY")},
        {"SpecificCharacterSet": ("CS", b"ISO_IR 100\\" * 1000)},
    ],
    ids=["long", "very long", "sequence", "bytes", "character set"],
)
def test_radiograph_whose_patient_cannot_be_copied_is_refused_by_the_tag(raw: dict[str, tuple[str, bytes]]) -> None:
    with pytest.raises(UnreadableImageError, match=r"\((0010|0008),00\d\d\) \w+") as caught:
        source(raw_file(raw))
    assert "CANARY" not in str(caught.value)


def nested(levels: int) -> bytes:
    """Return the value of a sequence that nests a patient identifier this deeply."""
    inner = element("PatientID", "LO", b"CANARY")
    for _ in range(levels - 1):
        inner = element(OTHER_IDS, "SQ", sequence(inner))
    return sequence(inner)


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
def test_small_sequence_is_copied_with_its_own_bytes(syntax: UID) -> None:
    issuer = sequence(element("UniversalEntityID", "UT", "Häuser".encode("latin-1"), syntax), syntax=syntax)
    item = (
        element("PatientID", "LO", b"\xff-7 ", syntax)
        + element("IssuerOfPatientID", "LO", b"Stra\xdfe", syntax)
        + element("IssuerOfPatientIDQualifiersSequence", "SQ", issuer, syntax)
    )
    read = source(raw_file({OTHER_IDS: ("SQ", sequence(item, item, syntax=syntax))}, syntax))
    (copied,) = [each for each in read.patient_and_study if each.tag == Tag(OTHER_IDS)]
    plain = sequence(element("UniversalEntityID", "UT", "Häuser".encode("latin-1")))
    expected = (
        element("PatientID", "LO", b"\xff-7 ")
        + element("IssuerOfPatientID", "LO", b"Stra\xdfe")
        + element("IssuerOfPatientIDQualifiersSequence", "SQ", plain)
    )
    assert copied.encoded == element(OTHER_IDS, "SQ", sequence(expected, expected))
    assert read.not_copied == ()


TOO_MUCH = {
    "three levels": nested(3),
    "12 levels": nested(12),
    "an item too many": sequence(*[element("PatientID", "LO", b"CANARY")] * (MAX_ITEMS + 1)),
    "5,000 items": sequence(*[element("PatientID", "LO", b"CANARY")] * 5000),
    "a long text": sequence(element("PatientID", "LO", b"CANARY" * MAX_VALUE_BYTES)),
    "bytes": sequence(element("PixelData", "OB", bytes(100))),
}
HOSTILE = {
    "250 levels": nested(250),
    "5000 levels": nested(5000),
    "60,000 items": sequence(*[element("PatientID", "LO", b"CANARY")] * 60_000),
    "60,000 empty items": sequence(*[b""] * 60_000),
    "an item that ends behind the sequence": sequence(element("PatientID", "LO", b"CANARY"))[:-4],
    "no items": b"CANARYCANARY",
}


@pytest.mark.parametrize("value", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_sequence_that_is_not_small_and_flat_is_left_out_and_named(value: bytes) -> None:
    data = raw_file({OTHER_IDS: ("SQ", value)})
    read = source(data)
    assert read.not_copied == (OTHER_IDS,)
    assert sum(len(each.encoded) for each in read.patient_and_study) < 1000
    assert all(NAME in raw_values(result) and Tag(OTHER_IDS) not in raw_values(result) for result in results(data))


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_sequence_is_left_out_or_its_file_refused_without_a_value(value: bytes) -> None:
    """The file is refused or the attribute left out: the reader of files may have limits of its own."""
    try:
        said = source(raw_file({OTHER_IDS: ("SQ", value)})).not_copied
    except UnreadableImageError as error:
        said = (str(error),)
    assert len(said) == 1
    assert "CANARY" not in said[0]


def test_two_levels_and_the_full_number_of_items_are_copied() -> None:
    full = sequence(*[element("PatientID", "LO", b"7-")] * MAX_ITEMS)
    for value in (nested(2), full):
        read = source(raw_file({OTHER_IDS: ("SQ", value)}))
        assert read.not_copied == ()
        assert element(OTHER_IDS, "SQ", value) in [each.encoded for each in read.patient_and_study]


@pytest.mark.parametrize(("levels", "copied"), [(1, True), (2, True), (3, False), (12, False)])
def test_sequences_of_undefined_length_have_the_same_bounds(levels: int, copied: bool) -> None:
    inner = element("PatientID", "LO", b"\xff-")
    for _ in range(levels):
        value = UNDEFINED_ITEM + inner + END_OF_ITEM + END_OF_SEQUENCE
        inner = struct.pack("<HH2sHL", 0x0010, 0x1002, b"SQ", 0, 0xFFFFFFFF) + value
    data = raw_file({})
    start = data.index(struct.pack("<HH2s", 0x0018, 0x0015, b"CS"))
    read = source(data[:start] + inner + data[start:])
    assert read.not_copied == (() if copied else (OTHER_IDS,))
    found = b"".join(each.encoded for each in read.patient_and_study)
    assert (element("PatientID", "LO", b"\xff-") in found) == copied


def test_item_with_too_many_attributes_is_left_out() -> None:
    keywords = ["PatientID", "IssuerOfPatientID", "PatientName", "PatientSex"]
    few = b"".join(element(keyword, "LO", b"7-") for keyword in sorted(keywords, key=Tag))
    many = b"".join(
        (0x0010).to_bytes(2, "little") + (0x2000 + n).to_bytes(2, "little") + b"LO\2\0" + b"7-"
        for n in range(MAX_ITEM_TAGS + 1)
    )
    assert source(raw_file({OTHER_IDS: ("SQ", sequence(few))})).not_copied == ()
    assert source(raw_file({OTHER_IDS: ("SQ", sequence(many))})).not_copied == (OTHER_IDS,)


def test_big_endian_source_gives_the_results_of_a_little_endian_one() -> None:
    raw = {"PatientName": ("PN", b"\xff^\xfe"), "SpecificCharacterSet": ("CS", b"ISO_IR 999")}
    little, big = (source(raw_file(raw, syntax)) for syntax in (ExplicitVRLittleEndian, ExplicitVRBigEndian))
    assert little == big


def test_compression_is_copied_from_a_lossy_source_alone() -> None:
    ratio = {"LossyImageCompressionRatio": ("DS", b"10.5"), "LossyImageCompressionMethod": ("CS", b"ISO_10918_1")}
    lossy, lossless = (source(raw_file(ratio, LossyImageCompression=said)) for said in ("01", "00"))
    assert [each.tag for each in lossy.compression] == [0x00282112, 0x00282114]
    assert (lossy.lossy, lossless.lossy, lossless.compression) == (True, False, ())
