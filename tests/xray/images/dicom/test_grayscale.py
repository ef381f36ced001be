"""Stored values become the gray that the tags ask for, and damaged tags do not make it dark, white or inverted."""

from typing import Any

import numpy as np
import pytest
from pydicom import DataElement
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.dicom_files import dicom, lookup
from tests.phantoms import draw_phantom
from xray.errors import UnreadableImageError
from xray.images.dicom.decode import decode_dicom
from xray.images.radiograph import Radiograph

PHANTOM = draw_phantom(seed=5)
TWELVE_BITS = PHANTOM.astype(np.uint16) * 16 + 3
HEIGHT, WIDTH = PHANTOM.shape
RAMP = np.arange(4096)


def shown(stored: np.ndarray, bits: int = 12, **tags: Any) -> np.ndarray:
    return decode_dicom(dicom(stored, bits, **tags)).pixels.astype(int)


def far(left: np.ndarray, right: np.ndarray) -> int:
    return int(np.abs(left.astype(int) - right.astype(int)).max())


@pytest.mark.parametrize("announced", [8, 10, 12, 13, 14, 16])
@pytest.mark.parametrize(
    ("entries", "word"),
    [(RAMP // 16, "<u2"), (RAMP // 16, "u1"), (RAMP // 4, "<u2"), (RAMP, "<u2"), (RAMP * 4, "<u2"), (RAMP * 16, "<u2")],
    ids=("8 bits in words", "8 bits packed", "10 bits", "12 bits", "14 bits", "16 bits"),
)
def test_table_is_scaled_by_its_own_range_whatever_its_descriptor_says(
    announced: int, entries: np.ndarray, word: str
) -> None:
    item = lookup(0, announced, entries, word)
    assert far(shown(TWELVE_BITS, VOILUTSequence=item), PHANTOM) <= 1


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("vr", ["OW", "US"])
@pytest.mark.parametrize("word", ["u2", "u1"])
def test_table_is_read_in_every_way_it_can_be_written(syntax: Any, vr: str, word: str) -> None:
    if vr == "US" and word == "u1":
        pytest.skip("bytes are packed into OW only")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    entries = RAMP // 16 if word == "u1" else RAMP
    item = lookup(0, 8 if word == "u1" else 12, entries, f"{order}{word}")
    if word == "u1" and order == ">":
        item[0].LUTData = np.frombuffer(item[0].LUTData, "<u2").astype(">u2").tobytes()
    if vr == "US":
        item[0].LUTData = [int(each) for each in entries]
    item[0]["LUTData"].VR = vr
    assert far(decode_dicom(dicom(TWELVE_BITS, 12, syntax, VOILUTSequence=item)).pixels, PHANTOM) <= 1


@pytest.mark.parametrize("vr", ["US", "SS"])
def test_first_value_of_a_table_has_the_sign_of_the_values(vr: str) -> None:
    signed = TWELVE_BITS.astype(np.int16) - 2048
    item = lookup(-2048 if vr == "SS" else 65536 - 2048, 12, RAMP)
    item[0]["LUTDescriptor"].VR = vr
    assert far(shown(signed, PixelRepresentation=1, VOILUTSequence=item), PHANTOM) <= 1
    high = PHANTOM.astype(np.uint16) * 16 + 40000
    item = lookup(40000 if vr == "US" else 40000 - 65536, 12, RAMP)
    item[0]["LUTDescriptor"].VR = vr
    assert far(shown(high, 16, VOILUTSequence=item), PHANTOM) <= 1


@pytest.mark.parametrize("tag", ["VOILUTSequence", "ModalityLUTSequence"])
def test_table_without_its_entries_is_refused_by_its_tag(tag: str) -> None:
    short, none, deep = lookup(0, 12, RAMP), lookup(0, 12, RAMP), lookup(0, 17, RAMP)
    short[0].LUTData = short[0].LUTData[:6000]
    del none[0].LUTData
    for item in (short, none, deep):
        tags: dict[str, Any] = {tag: item}
        with pytest.raises(UnreadableImageError, match=r"\(0028,30[01]0\)"):
            shown(TWELVE_BITS, **tags)


NO_WINDOW: dict[str, dict[str, Any]] = {
    "width 0": {"WindowCenter": 2048, "WindowWidth": 0},
    "negative width": {"WindowCenter": 2048, "WindowWidth": -4096},
    "no width": {"WindowCenter": 2048},
    "width is no number": {"WindowCenter": 2048, "WindowWidth": "NaN"},
    "center is no number": {"WindowCenter": "NaN", "WindowWidth": 4096},
    "boundless": {"WindowCenter": 2048, "WindowWidth": "inf"},
    "decimal comma": {
        "WindowCenter": DataElement(0x00281050, "LO", "2048,5"),
        "WindowWidth": DataElement(0x00281051, "LO", "4096,0"),
    },
    "all of two": {"WindowCenter": [0, 5], "WindowWidth": [0, -1]},
    **{
        f"width 0, {function}": {"WindowCenter": 2048, "WindowWidth": 0, "VOILUTFunction": function}
        for function in ("LINEAR_EXACT", "SIGMOID")
    },
}


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize("case", NO_WINDOW)
def test_window_that_can_be_none_counts_as_none(case: str) -> None:
    assert (shown(TWELVE_BITS, **NO_WINDOW[case]) == PHANTOM).all()


def test_first_of_several_windows_that_can_be_one_is_taken() -> None:
    tags: dict[str, Any] = {"WindowCenter": [0, 2048, 100], "WindowWidth": [0, 4096, 10]}
    assert far(shown(TWELVE_BITS, **tags), PHANTOM) <= 1


def test_narrow_window_of_an_image_that_is_rescaled_to_small_numbers_is_exact() -> None:
    tags: dict[str, Any] = {
        "RescaleSlope": "0.0001",
        "RescaleIntercept": 0,
        "WindowCenter": "0.2048",
        "WindowWidth": "0.4096",
    }
    assert far(shown(TWELVE_BITS, **tags), PHANTOM) <= 1


EDGE = 9


def bordered(value: int, sides: str = "lrtb") -> tuple[np.ndarray, np.ndarray]:
    """A phantom of 12 bits with a border, and whether each pixel is inside."""
    inside = np.ones(PHANTOM.shape, bool)
    places: dict[str, Any] = {"l": np.s_[:, :EDGE], "r": np.s_[:, -EDGE:], "t": np.s_[:EDGE], "b": np.s_[-EDGE:]}
    for side, place in places.items():
        if side in sides:
            inside[place] = False
    return np.where(inside, TWELVE_BITS, value).astype(np.uint16), inside


@pytest.mark.parametrize("sides", ["l", "tb", "lrtb"])
@pytest.mark.parametrize("value", [65535, 60000, 20000])
@pytest.mark.parametrize("tags", [{}, {"WindowCenter": 2048, "WindowWidth": 4096}], ids=("no window", "window"))
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_no_part_of_the_range(
    sides: str, value: int, tags: dict[str, Any], photometric: str
) -> None:
    stored, inside = bordered(value, sides)
    if photometric == "MONOCHROME1":
        stored = np.where(inside, 4095 - TWELVE_BITS, value)
    pixels = shown(stored, 16, PixelPaddingValue=value, PhotometricInterpretation=photometric, **tags)
    assert (pixels[~inside] == 0).all()
    assert far(pixels[inside], PHANTOM[inside]) <= 1


def test_range_of_padding_is_left_out_in_either_order() -> None:
    stored, inside = bordered(65535)
    stored[0] = 65000
    for value, limit in ((65000, 65535), (65535, 65000)):
        pixels = shown(stored, 16, PixelPaddingValue=value, PixelPaddingRangeLimit=limit)
        assert (pixels == np.where(inside, PHANTOM, 0)).all()


@pytest.mark.parametrize("bits", [12, 16])
def test_padding_of_signed_pixels_is_left_out_however_it_is_written(bits: int) -> None:
    signed = TWELVE_BITS.astype(np.int16) - 2048
    stored, inside = np.where(bordered(0)[1], signed, -2000), bordered(0)[1]
    bare = shown(signed, bits, PixelRepresentation=1)
    for vr, value in (("SS", -2000), ("US", 65536 - 2000)):
        written = DataElement(0x00280120, vr, value)
        pixels = shown(stored, bits, PixelRepresentation=1, PixelPaddingValue=written)
        assert (pixels[~inside] == 0).all()
        assert far(pixels[inside], bare[inside]) <= 2


def test_padding_of_the_whole_word_is_found_where_fewer_bits_are_stored() -> None:
    stored, inside = bordered(65535)
    pixels = shown(stored, 12, PixelPaddingValue=65535)
    assert (pixels == np.where(inside, PHANTOM, 0)).all()


@pytest.mark.parametrize("value", [65535, 16383])
@pytest.mark.parametrize("pixels", [1, 12])
def test_hot_pixels_do_not_darken_the_rest(value: int, pixels: int) -> None:
    stored = TWELVE_BITS.copy()
    places = np.arange(pixels) * 37 % WIDTH
    stored[5, places] = value
    gray = shown(stored, 16)
    assert (gray[5, places] == 255).all()
    rest = np.ones(PHANTOM.shape, bool)
    rest[5, places] = False
    assert (gray[rest] == PHANTOM[rest]).all()


@pytest.mark.parametrize("sides", ["l", "tb", "lrtb"])
def test_white_border_that_nothing_announces_does_not_darken_the_rest(sides: str) -> None:
    stored, inside = bordered(65535, sides)
    assert (shown(stored, 16) == np.where(inside, PHANTOM, 255)).all()


NOISE = np.random.default_rng(0)
STRANGERS: dict[str, tuple[Any, np.ndarray]] = {
    "noisy border": (np.s_[:, :EDGE], NOISE.integers(65500, 65536, (HEIGHT, EDGE))),
    "two borders": (np.s_[:, [*range(EDGE), *range(-EDGE, 0)]], np.repeat([65535, 60000], EDGE)),
    "letters": (np.s_[20:30, 20:60], NOISE.choice([60000, 62000, 64000, 65535], (10, 40))),
    "border and a hot pixel": (
        np.s_[:, :EDGE],
        np.where(np.arange(HEIGHT * EDGE) == 50, 65535, 16383).reshape(-1, EDGE),
    ),
}


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("stranger", STRANGERS)
def test_what_is_no_anatomy_takes_no_levels_from_it(stranger: str, photometric: str) -> None:
    place, values = STRANGERS[stranger]
    stored, anatomy = TWELVE_BITS.copy(), np.ones(PHANTOM.shape, bool)
    stored[place], anatomy[place] = values, False
    gray = shown(stored, 16, PhotometricInterpretation=photometric)
    assert (gray[anatomy] == (PHANTOM if photometric == "MONOCHROME2" else 255 - PHANTOM)[anatomy]).all()


@pytest.mark.parametrize(
    ("stored", "tags"),
    [
        (TWELVE_BITS.astype(np.int16) - 2048, {"PixelRepresentation": 1}),
        (TWELVE_BITS + 32768, {}),
        (TWELVE_BITS + 32768, {"RescaleSlope": 1, "RescaleIntercept": -32768}),
        (PHANTOM.astype(np.uint16) + 40000, {}),
    ],
    ids=("signed", "raised", "raised and rescaled", "narrow and raised"),
)
def test_levels_are_kept_where_the_values_do_not_begin_at_zero(stored: np.ndarray, tags: dict[str, Any]) -> None:
    gray = shown(stored, 16, **tags)
    order = np.argsort(PHANTOM, axis=None)
    assert (np.diff(gray.ravel()[order]) >= 0).all()
    assert len(np.unique(gray)) >= len(np.unique(PHANTOM)) // 2


@pytest.mark.parametrize("tags", [{}, {"WindowCenter": 2048, "WindowWidth": 4096}], ids=("no window", "window"))
@pytest.mark.parametrize("intercept", [0, 100])
def test_slope_of_zero_rescales_nothing(intercept: int, tags: dict[str, Any]) -> None:
    assert far(shown(TWELVE_BITS, RescaleSlope=0, RescaleIntercept=intercept, **tags), PHANTOM) <= 1


def test_falling_slope_without_a_window_turns_the_image() -> None:
    tags = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    assert (shown(4095 - TWELVE_BITS, **tags) == PHANTOM).all()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("border", ["l", "lr", "lrtb", ""])
def test_files_own_word_on_polarity_is_not_overruled(photometric: str, border: str) -> None:
    """A radiograph with white borders that looks like a negative."""
    stored = bordered(4095, border)[0]
    for values in (stored, 4095 - stored):
        pixels = shown(values, PhotometricInterpretation=photometric, WindowCenter=2048, WindowWidth=4096)
        expected = values // 16 if photometric == "MONOCHROME2" else 255 - values // 16
        assert far(pixels, expected) <= 1


ASPECTS: dict[str, tuple[dict[str, Any], float]] = {
    "square": ({}, 1.0),
    "wide at the detector": ({"ImagerPixelSpacing": [0.1, 0.155]}, 0.1 / 0.155),
    "high": ({"PixelSpacing": [0.3, 0.2]}, 1.5),
    "calibrated goes first": ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.1, 0.2]}, 1.0),
    "zeros do not count": ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.1, 0.2]}, 0.5),
    "on the film": ({"ImagerPixelSpacing": None, "NominalScannedPixelSpacing": [0.2, 0.1]}, 2.0),
    "a ratio": ({"ImagerPixelSpacing": None, "PixelAspectRatio": [1, 2]}, 0.5),
    "a ratio of large numbers": ({"ImagerPixelSpacing": None, "PixelAspectRatio": [1000, 1550]}, 1 / 1.55),
    "micrometres": ({"ImagerPixelSpacing": [150, 300]}, 0.5),
    "no number": ({"ImagerPixelSpacing": None, "PixelAspectRatio": DataElement(0x00280034, "LO", "1:2")}, 1.0),
    "boundless": ({"PixelSpacing": ["inf", "inf"], "ImagerPixelSpacing": [0.1, 0.2]}, 0.5),
    "nothing": ({"ImagerPixelSpacing": None}, 1.0),
}


@pytest.mark.parametrize("case", ASPECTS)
def test_shape_of_a_pixel_is_taken_from_the_first_tag_that_gives_it(case: str) -> None:
    tags, aspect = ASPECTS[case]
    radiograph: Radiograph = decode_dicom(dicom(TWELVE_BITS, 12, **tags))
    assert radiograph.pixel_aspect == pytest.approx(aspect)
    assert radiograph.pixels.shape == PHANTOM.shape


@pytest.mark.parametrize("tail", [bytes(2), bytes(16), bytes(19044), b"\xff" * 640, bytes(range(100))])
def test_excess_padding_behind_the_pixels_is_ignored(tail: bytes) -> None:
    assert (decode_dicom(dicom(TWELVE_BITS, 12, tail=tail)).pixels == PHANTOM).all()


@pytest.mark.parametrize("frames", [0, 1, ""])
def test_no_number_of_frames_or_none_means_one(frames: object) -> None:
    assert (shown(TWELVE_BITS, NumberOfFrames=frames) == PHANTOM).all()


@pytest.mark.parametrize("modality", ["DR", "RG", "XR", "OT", ""])
def test_radiograph_by_its_class_is_read_whatever_its_modality_is_called(modality: str) -> None:
    assert (shown(TWELVE_BITS, Modality=modality) == PHANTOM).all()
