"""A DICOM file decodes to what a viewer shows, or is refused with the name of the wrong tag."""

import contextlib
import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from tests.dicom_files import (
    ENCODERS,
    LOSSY,
    NATIVE,
    dicom,
    encapsulated,
    inflating,
    lookup,
    make_header,
    recoded,
    saved,
    shown_by_dcmtk,
)
from tests.phantoms import draw_phantom
from tests.tools import needs
from xray.errors import (
    InputError,
    NoContentError,
    OutOfScopeError,
    TooManyPixelsError,
    UnreadableImageError,
    UnsupportedFormatError,
)
from xray.images.decoding.decode import decode_radiograph
from xray.images.dicom.body_parts import to_mura_body_part
from xray.images.dicom.decode import decode_dicom
from xray.images.radiograph import DicomFacts

PHANTOM = draw_phantom(seed=5)
TWELVE_BITS = PHANTOM.astype(np.uint16) * 16 + 3
dcmtk = needs("dcmj2pnm")


@pytest.mark.parametrize("syntax", [*NATIVE, *ENCODERS], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_transfer_syntaxes_give_the_very_pixels(syntax: UID, bits: int) -> None:
    stored: dict[int, np.ndarray] = {8: PHANTOM, 12: TWELVE_BITS, 16: PHANTOM.astype(np.uint16) * 257}
    assert (decode_dicom(dicom(stored[bits], bits, syntax)).pixels == PHANTOM).all()


@dcmtk
@pytest.mark.parametrize(
    ("tool", "option"), [("dcmcjpeg", "+e1"), ("dcmcjpeg", "+el"), ("dcmcjpls", "+el"), ("dcmcrle", "+U8")]
)
@pytest.mark.parametrize("bits", [8, 12])
def test_what_dcmtk_encodes_without_loss_gives_the_very_pixels(
    tool: str, option: str, bits: int, tmp_path: Path
) -> None:
    options = () if tool == "dcmcrle" else (option,)
    coded = recoded(tool, dicom(PHANTOM if bits == 8 else TWELVE_BITS, bits), tmp_path, *options)
    assert (decode_dicom(coded).pixels == PHANTOM).all()


@pytest.mark.parametrize("syntax", LOSSY, ids=lambda syntax: syntax.name)
def test_lossy_transfer_syntaxes_give_nearly_the_same_pixels(syntax: UID) -> None:
    difference = decode_dicom(dicom(PHANTOM, 8, syntax)).pixels.astype(int) - PHANTOM
    assert 0 < np.abs(difference).mean() < 2


@dcmtk
def test_jpeg_extended_of_twelve_bits_gives_nearly_the_same_pixels(tmp_path: Path) -> None:
    coded = recoded("dcmcjpeg", dicom(TWELVE_BITS, 12), tmp_path, "+ee")
    assert dcmread(io.BytesIO(coded)).file_meta.TransferSyntaxUID == JPEGExtended12Bit
    assert np.abs(decode_dicom(coded).pixels.astype(int) - PHANTOM).max() <= 3


SIGNED = TWELVE_BITS.astype(np.int16) - 2048
SHOWN: dict[str, tuple[np.ndarray, int, dict[str, Any]]] = {
    "linear": (TWELVE_BITS, 12, {"WindowCenter": 2000, "WindowWidth": 2500}),
    "linear, exact": (
        TWELVE_BITS,
        12,
        {"WindowCenter": 2000, "WindowWidth": 2500, "VOILUTFunction": "LINEAR_EXACT"},
    ),
    "sigmoid": (TWELVE_BITS, 12, {"WindowCenter": 2000, "WindowWidth": 2500, "VOILUTFunction": "SIGMOID"}),
    "first of two windows": (TWELVE_BITS, 12, {"WindowCenter": [1500, 3000], "WindowWidth": [2900, 100]}),
    "rescaled": (
        TWELVE_BITS,
        12,
        {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 3000, "WindowWidth": 6000},
    ),
    "slope of zero": (
        TWELVE_BITS,
        12,
        {"RescaleSlope": 0, "RescaleIntercept": 100, "WindowCenter": 2000, "WindowWidth": 4000},
    ),
    "falling slope": (
        TWELVE_BITS,
        12,
        {"RescaleSlope": -1, "RescaleIntercept": 4095, "WindowCenter": 2000, "WindowWidth": 4000},
    ),
    "signed": (SIGNED, 12, {"PixelRepresentation": 1, "WindowCenter": 0, "WindowWidth": 4000}),
    "inverse": (
        4095 - TWELVE_BITS,
        12,
        {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 2000, "WindowWidth": 4000},
    ),
    "inverse, told twice": (
        4095 - TWELVE_BITS,
        12,
        {
            "PhotometricInterpretation": "MONOCHROME1",
            "PresentationLUTShape": "INVERSE",
            "WindowCenter": 2000,
            "WindowWidth": 4000,
        },
    ),
    "ten bits": (PHANTOM.astype(np.uint16) * 4, 10, {"WindowCenter": 500, "WindowWidth": 1000}),
    "fifteen bits": (PHANTOM.astype(np.uint16) * 128, 15, {"WindowCenter": 16000, "WindowWidth": 32000}),
    "eight bits": (PHANTOM, 8, {"WindowCenter": 120, "WindowWidth": 200}),
    "width of one": (TWELVE_BITS, 12, {"WindowCenter": 1500, "WindowWidth": 1}),
    "modality table": (
        TWELVE_BITS,
        12,
        {
            "ModalityLUTSequence": lookup(0, 16, np.arange(4096) ** 2 // 256),
            "WindowCenter": 30000,
            "WindowWidth": 60000,
        },
    ),
    "table before window": (
        TWELVE_BITS,
        12,
        {
            "VOILUTSequence": lookup(100, 12, 4095 * (np.arange(3800) / 3800) ** 0.5),
            "WindowCenter": 100,
            "WindowWidth": 10,
        },
    ),
}


@dcmtk
@pytest.mark.parametrize("case", SHOWN)
def test_pixels_are_what_dcmtk_shows(case: str, tmp_path: Path) -> None:
    stored, bits, tags = SHOWN[case]
    data = dicom(stored, bits, **tags)
    options = ("+Wl", "1") if case == "table before window" else ("+Wi", "1")
    radiograph = decode_dicom(data)
    ours = 255 - radiograph.pixels if radiograph.inverted else radiograph.pixels
    difference = ours.astype(int) - shown_by_dcmtk(data, tmp_path, *options)
    assert np.abs(difference).max() <= 1


def test_bits_beside_the_stored_ones_are_left_away() -> None:
    overlay = (np.arange(PHANTOM.size).reshape(PHANTOM.shape) % 16).astype(np.uint16) << 12
    assert (decode_dicom(dicom(TWELVE_BITS | overlay, 12)).pixels == PHANTOM).all()
    high = (TWELVE_BITS << 4) | (overlay >> 12)
    assert (decode_dicom(dicom(high, 12, HighBit=15)).pixels == PHANTOM).all()


def test_table_of_a_big_endian_file_is_read_as_such() -> None:
    tags: dict[str, Any] = {"VOILUTSequence": lookup(0, 12, np.arange(4096))}
    tags["VOILUTSequence"][0].LUTData = np.arange(4096, dtype=">u2").tobytes()
    big = decode_dicom(dicom(TWELVE_BITS, 12, ExplicitVRBigEndian, **tags))
    little = decode_dicom(dicom(TWELVE_BITS, 12, VOILUTSequence=lookup(0, 12, np.arange(4096))))
    assert (big.pixels == little.pixels).all()


def test_facts_are_the_studys_and_not_the_patients() -> None:
    facts = decode_dicom(dicom(PHANTOM)).dicom
    root = "1.2.826.0.1.3680043.10.1338"
    assert facts == DicomFacts(f"{root}.1", f"{root}.2", f"{root}.3", "XR_HAND", "L", "PA", (0.15, 0.15))


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_facts_that_are_missing_or_odd_are_left_away() -> None:
    odd: dict[str, Any] = {
        "ViewPosition": "Canary^Bird",
        "ImageLaterality": None,
        "ImagerPixelSpacing": None,
        "BodyPartExamined": None,
    }
    facts = decode_dicom(dicom(PHANTOM, StudyInstanceUID="Canary", **odd)).dicom
    assert facts is not None
    assert (facts.study_uid, facts.body_part, facts.laterality, facts.view, facts.spacing) == (None,) * 5


@pytest.mark.parametrize(
    ("term", "body_part"),
    [("HAND", "XR_HAND"), ("Left Hands", "XR_HAND"), ("KNEE_R", None), ("TOES", "XR_FOOT"), ("", None)],
)
def test_body_part_is_named_as_in_mura(term: str, body_part: str | None) -> None:
    assert to_mura_body_part(term) == body_part


CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
REFUSED: dict[str, tuple[dict[str, Any], type[InputError], str]] = {
    "CT": ({"Modality": "CT"}, OutOfScopeError, r"\(0008,0060\) Modality is CT"),
    "MR": ({"Modality": "MR"}, OutOfScopeError, r"\(0008,0060\) Modality is MR"),
    "no modality": (
        {"Modality": None, "SOPClassUID": SecondaryCaptureImageStorage},
        OutOfScopeError,
        r"\(0008,0060\) Modality is missing",
    ),
    "gray with three samples": ({"SamplesPerPixel": 3}, UnreadableImageError, r"\(0028,0002\) Samples per Pixel is 3"),
    "pixels of a strange shape": (
        {"ImagerPixelSpacing": [0.1, 15]},
        UnreadableImageError,
        r"\(0018,1164\).* 150 times",
    ),
    "sign": ({"PixelRepresentation": 2}, UnreadableImageError, r"\(0028,0103\) Pixel Representation is 2"),
    "frames": ({"NumberOfFrames": 2}, OutOfScopeError, r"\(0028,0008\) Number of Frames is 2"),
    "colour": ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, OutOfScopeError, r"\(0028,0004\)"),
    "for processing": ({"PresentationIntentType": "FOR PROCESSING"}, OutOfScopeError, r"\(0008,0068\)"),
    "chest": ({"BodyPartExamined": "CHEST"}, OutOfScopeError, r"\(0018,0015\) Body Part Examined is CHEST"),
    "cervical spine": ({"BodyPartExamined": "C-SPINE"}, OutOfScopeError, r"\(0018,0015\)"),
    "too few rows": ({"Rows": 100}, UnreadableImageError, r"\(7FE0,0010\).*20,480.*12,800"),
    "too many rows": ({"Rows": 200}, UnreadableImageError, r"\(7FE0,0010\).*20,480.*25,600"),
    "no rows": ({"Rows": 0}, UnreadableImageError, r"\(0028,0010\) Rows is 0"),
    "missing columns": ({"Columns": None}, UnreadableImageError, r"\(0028,0011\) Columns is missing"),
    "huge": ({"Rows": 30000, "Columns": 30000}, TooManyPixelsError, "30000x30000"),
    "bits": ({"BitsStored": 9}, UnreadableImageError, r"\(0028,0101\) Bits Stored is 9"),
    "one bit": ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, UnreadableImageError, r"\(0028,0100\)"),
    "slope": ({"RescaleSlope": "NaN", "RescaleIntercept": 1}, UnreadableImageError, r"\(0028,1053\)"),
}


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize("case", REFUSED)
def test_refusal_names_the_tag(case: str) -> None:
    tags, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        decode_dicom(dicom(PHANTOM, **tags))


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_refusal_repeats_no_value_that_may_be_a_patients() -> None:
    with pytest.raises(OutOfScopeError) as raised:
        decode_dicom(dicom(PHANTOM, Modality="Canary^Bird", SOPClassUID=SecondaryCaptureImageStorage))
    assert "Canary" not in str(raised.value)


def test_for_processing_with_a_window_is_read() -> None:
    tags: dict[str, Any] = {"PresentationIntentType": "FOR PROCESSING", "WindowCenter": 128, "WindowWidth": 256}
    assert decode_dicom(dicom(PHANTOM, **tags)).pixels.shape == PHANTOM.shape


def test_constant_pixels_and_missing_ones_are_refused() -> None:
    with pytest.raises(NoContentError, match="constant"):
        decode_dicom(dicom(np.zeros((64, 64), np.uint8)))
    with pytest.raises(UnreadableImageError, match=r"\(7FE0,0010\) Pixel Data is missing"):
        decode_dicom(saved(make_header(PHANTOM)))


def test_unknown_transfer_syntax_is_unsupported() -> None:
    with pytest.raises(UnsupportedFormatError, match=r"\(0002,0010\)"):
        decode_dicom(encapsulated(make_header(PHANTOM, syntax=UID("1.2.840.10008.1.2.4.102")), bytes(4000)))


def test_bombs_are_refused_before_they_are_decoded() -> None:
    deflated = inflating(dicom(PHANTOM, 8, DeflatedExplicitVRLittleEndian), 400 << 20)
    assert len(deflated) < 500_000
    with pytest.raises(TooManyPixelsError):
        decode_dicom(deflated)
    tags = {"Rows": 30000, "Columns": 30000}
    with pytest.raises(TooManyPixelsError):
        decode_dicom(encapsulated(make_header(PHANTOM, syntax=RLELossless, **tags), bytes(4000)))
    blank = imagecodecs.jpeg2k_encode(np.zeros((8000, 8000), np.uint8), codecformat="j2k")
    tags = {"Rows": 8000, "Columns": 8000}
    with pytest.raises(NoContentError, match="holds"):
        decode_dicom(encapsulated(make_header(PHANTOM, syntax=JPEG2000Lossless, **tags), blank))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, *ENCODERS])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.97])
def test_truncated_file_is_an_input_error(syntax: UID, share: float) -> None:
    data = dicom(PHANTOM, 8, syntax)
    with pytest.raises(InputError):
        decode_dicom(data[: int(len(data) * share)])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_damaged_bytes_are_an_input_error_and_nothing_else(syntax: UID) -> None:
    """Runs in this process, so without native decoders, because a decoder may crash its process."""
    random, sound = np.random.default_rng(1), dicom(PHANTOM, 8, syntax)
    for _ in range(150):
        damaged = bytearray(sound)
        for place in random.integers(132, 1200, 4):
            damaged[place % len(sound)] = random.integers(256)
        with contextlib.suppress(InputError):
            decode_dicom(bytes(damaged))


@pytest.mark.parametrize(
    "name",
    [
        "JPGExtended.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "693_J2KI.dcm",
        "MR_small_RLE.dcm",
        "image_dfl.dcm",
        "MR_truncated.dcm",
        "badVR.dcm",
        "meta_missing_tsyntax.dcm",
        "JPEG2000-embedded-sequence-delimiter.dcm",
    ],
)
def test_foreign_files_that_are_no_radiograph_of_a_limb_are_refused(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None
    with pytest.raises(InputError):
        decode_radiograph(Path(str(path)).read_bytes())


def test_real_computed_radiographs_of_a_neck_are_out_of_scope() -> None:
    path = get_testdata_file("dicomdirtests/77654033/CR1/6154", download=False)
    assert path is not None
    with pytest.raises(InputError):
        decode_radiograph(Path(str(path)).read_bytes())
