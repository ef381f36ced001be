"""Compressed DICOM pixels are decoded exactly, by imagecodecs alone, or refused with the reason."""

import struct
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from tests.conftest import ROOT
from tests.dicom_files import (
    ENCODERS,
    LOSSY,
    Encoded,
    dicom,
    encapsulated,
    encode_j2k,
    encode_rle,
    fragments,
    make_header,
    recoded,
    stored_values,
)
from tests.tools import needs
from xray.errors import UnreadableImageError
from xray.images.dicom.decode import decode_dicom

OTHER_DECODERS = ("gdcm", "_gdcm", "pylibjpeg", "openjpeg", "libjpeg", "rle", "jpeg_ls")
"""Modules of python-gdcm, pylibjpeg and its plugins, and pyjpegls."""
dcmtk = needs("dcmcjpeg")
SHAPE = (61, 47)
"""Odd numbers, so that rows and segments end in the middle of a word."""


def drawn(bits: int, seed: int = 0) -> np.ndarray:
    """A bright bar and noise over the whole range of `bits`."""
    random, (height, width) = np.random.default_rng(seed), SHAPE
    across = np.abs(np.arange(width) - width / 2) / width
    image = (0.9 - across[None] + random.normal(0, 0.05, (height, width))).clip(0, 1) * ((1 << bits) - 1)
    image[0, :2], image[1, :2] = 0, (1 << bits) - 1
    return np.asarray(image, np.uint8 if bits <= 8 else np.uint16)


LOSSLESS: dict[str, tuple[UID, int, Callable[[np.ndarray], Encoded]]] = {
    **{
        f"{syntax.name}, {bits} bits": (syntax, bits, encode)
        for syntax, encode in ENCODERS.items()
        for bits in (8, 10, 12, 16)
    },
    **{
        f"JPEG lossless of exactly {bits} bits": (
            JPEGLosslessSV1,
            bits,
            partial(imagecodecs.ljpeg_encode, bitspersample=bits),
        )
        for bits in (9, 10, 13, 14, 15)
    },
    **{
        f"JPEG 2000 of exactly {bits} bits": (
            JPEG2000Lossless,
            bits,
            partial(encode_j2k, bitspersample=bits),
        )
        for bits in (10, 12, 15)
    },
    "JPEG 2000 in a JP2 file": (
        JPEG2000,
        12,
        lambda pixels: imagecodecs.jpeg2k_encode(pixels, reversible=True, level=0),
    ),
    "HTJ2K by resolution": (HTJ2KLosslessRPCL, 12, imagecodecs.htj2k_encode),
    "HTJ2K, without loss": (HTJ2K, 12, imagecodecs.htj2k_encode),
}


@pytest.mark.parametrize("case", LOSSLESS)
def test_lossless_pixels_come_out_bit_by_bit(case: str) -> None:
    syntax, bits, encode = LOSSLESS[case]
    pixels = drawn(bits)
    assert (stored_values(encapsulated(make_header(pixels, bits, syntax), encode(pixels))) == pixels).all()


SIGNED = drawn(12).astype(np.int32) - 2048
NARROW = (SIGNED & 0xFFF).astype(np.uint16)
"""Two's complement in 12 bits; the higher bits are 0."""
WIDE = SIGNED.astype(np.int16)
"""Two's complement in 16 bits."""
SIGNED_STREAMS: dict[str, tuple[UID, Encoded]] = {
    "JPEG lossless": (JPEGLosslessSV1, imagecodecs.ljpeg_encode(NARROW, bitspersample=12)),
    "JPEG lossless of 16 bits": (JPEGLosslessSV1, imagecodecs.ljpeg_encode(WIDE.view(np.uint16))),
    "JPEG-LS of 16 bits": (JPEGLSLossless, imagecodecs.jpegls_encode(WIDE.view(np.uint16))),
    "JPEG 2000, signed": (JPEG2000Lossless, encode_j2k(WIDE, bitspersample=12)),
    "JPEG 2000, signed, of 16 bits": (JPEG2000Lossless, encode_j2k(WIDE)),
    "JPEG 2000, unsigned": (JPEG2000Lossless, encode_j2k(NARROW, bitspersample=12)),
    "JPEG 2000, unsigned, of 16 bits": (JPEG2000Lossless, encode_j2k(WIDE.view(np.uint16))),
    "HTJ2K, signed": (HTJ2KLossless, imagecodecs.htj2k_encode(WIDE)),
    "RLE": (RLELossless, encode_rle(WIDE.view(np.uint16))),
    "RLE, zeros above": (RLELossless, encode_rle(NARROW)),
}


@pytest.mark.parametrize("case", SIGNED_STREAMS)
@pytest.mark.parametrize("stored", [12, 16])
def test_signed_pixels_come_out_bit_by_bit(case: str, stored: int) -> None:
    syntax, stream = SIGNED_STREAMS[case]
    if stored == 16 and case == "RLE, zeros above":
        pytest.skip("these words are not negative where 16 bits are stored")
    header = make_header(SIGNED, stored, syntax, PixelRepresentation=1)
    assert (stored_values(encapsulated(header, stream)) == SIGNED).all()


def test_signed_codestream_of_unsigned_pixels_is_read_as_the_tags_say() -> None:
    pixels = drawn(16)
    header = make_header(pixels, 16, JPEG2000Lossless)
    assert (stored_values(encapsulated(header, encode_j2k(pixels.view(np.int16)))) == pixels).all()


def test_codestream_of_fewer_bits_than_are_stored_keeps_its_values() -> None:
    pixels = drawn(8)
    for syntax, stream in ((JPEG2000Lossless, encode_j2k(pixels)), (JPEGLSLossless, imagecodecs.jpegls_encode(pixels))):
        assert (stored_values(encapsulated(make_header(pixels, 12, syntax), stream)) == pixels).all()


def test_baseline_jpeg_in_words_of_sixteen_bits_is_decoded() -> None:
    pixels = drawn(8)
    stream = imagecodecs.jpeg8_encode(pixels, level=98)
    header = make_header(pixels, 8, JPEGBaseline8Bit, BitsAllocated=16)
    assert np.abs(stored_values(encapsulated(header, stream)) - imagecodecs.jpeg8_decode(stream)).max() == 0


DOWN, ACROSS = np.indices((64, 64))
OVERSHOOTING = (np.where((DOWN + ACROSS) // 8 % 2, 1023, 900) - DOWN % 5).astype(np.uint16)
"""Ten bits whose white edges a lossy codec lifts above 1023."""


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEGExtended12Bit, lambda pixels: imagecodecs.jpeg8_encode(pixels, level=60, bitspersample=12)),
        (JPEGLSNearLossless, lambda pixels: imagecodecs.jpegls_encode(pixels, level=9)),
        (JPEG2000, lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", level=38, bitspersample=11)),
    ],
    ids=("JPEG Extended", "JPEG-LS", "JPEG 2000"),
)
def test_lossy_values_beyond_the_stored_bits_are_white_and_not_black(
    syntax: UID, encode: Callable[[np.ndarray], Encoded]
) -> None:
    stream = encode(OVERSHOOTING)
    decode: dict[UID, Callable[..., np.ndarray]] = {
        JPEGExtended12Bit: imagecodecs.jpeg8_decode,
        JPEGLSNearLossless: imagecodecs.jpegls_decode,
        JPEG2000: imagecodecs.jpeg2k_decode,
    }
    assert decode[syntax](stream).max() > 1023
    values = stored_values(encapsulated(make_header(OVERSHOOTING, 10, syntax), stream))
    assert values.max() == 1023
    assert values.min() > 800


@dcmtk
@pytest.mark.parametrize("predictor", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("bits", [8, 10, 16])
def test_every_predictor_of_lossless_jpeg_is_decoded(predictor: int, bits: int, tmp_path: Path) -> None:
    pixels = drawn(bits)
    coded = recoded("dcmcjpeg", dicom(pixels, bits), tmp_path, "+el", "+sv", str(predictor))
    assert (stored_values(coded) == pixels).all()


STREAMS: dict[str, tuple[UID, bytes]] = {
    name: (syntax, bytes({**ENCODERS, **LOSSY}[syntax](drawn(8))))
    for name, syntax in {
        "JPEG": JPEGBaseline8Bit,
        "lossless JPEG": JPEGLosslessSV1,
        "JPEG-LS": JPEGLSLossless,
        "JPEG 2000": JPEG2000Lossless,
        "HTJ2K": HTJ2KLossless,
        "RLE": RLELossless,
    }.items()
}


@pytest.mark.parametrize("case", STREAMS)
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda stream: fragments(stream, pieces=7),
        lambda stream: fragments(stream, pieces=7, offsets=struct.pack("<L", 0)),
        lambda stream: fragments(stream, offsets=struct.pack("<3L", 8, 77, 1 << 30)),
        lambda stream: fragments(stream + bytes(6)),
        lambda stream: fragments(stream, end=b""),
        lambda stream: fragments(stream, end=struct.pack("<HHL", 0xFFFE, 0xE0DD, 0xFFFFFFFF)),
    ],
    ids=("fragments", "offset table", "wrong offset table", "zeros behind", "no delimiter", "odd delimiter"),
)
def test_frame_is_found_however_it_is_wrapped(case: str, wrapped: Callable[[bytes], bytes]) -> None:
    syntax, stream = STREAMS[case]
    plain = stored_values(encapsulated(make_header(drawn(8), 8, syntax), stream))
    assert (stored_values(encapsulated(make_header(drawn(8), 8, syntax), raw=wrapped(stream))) == plain).all()


@pytest.mark.parametrize("case", STREAMS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.98])
def test_codestream_without_its_end_is_called_truncated(case: str, share: float) -> None:
    """Decoders silently fill the rest with gray."""
    syntax, stream = STREAMS[case]
    data = encapsulated(make_header(drawn(8), 8, syntax), stream[: int(len(stream) * share)])
    with pytest.raises(UnreadableImageError, match="corrupt" if case == "RLE" else "truncated"):
        decode_dicom(data)


@pytest.mark.parametrize("case", [name for name in STREAMS if name != "RLE"])
@pytest.mark.parametrize(("rows", "columns"), [(61, 46), (60, 47), (47, 61)])
def test_size_that_the_codestream_announces_has_to_be_the_tags(case: str, rows: int, columns: int) -> None:
    syntax, stream = STREAMS[case]
    data = encapsulated(make_header(drawn(8), 8, syntax, Rows=rows, Columns=columns), stream)
    with pytest.raises(UnreadableImageError, match=r"\(0028,0010\) Rows and \(0028,0011\) Columns are not those"):
        decode_dicom(data)


def huge(case: str) -> bytes:
    """The stream with 65,535 rows and columns in its header."""
    _, stream = STREAMS[case]
    wide = struct.pack(">HH", 65535, 65535)
    if "2" in case:
        return stream.replace(struct.pack(">LL", 47, 61), struct.pack(">LL", 65535, 65535), 1)
    return stream.replace(struct.pack(">HH", *SHAPE), wide, 1)


@pytest.mark.parametrize("case", [name for name in STREAMS if name != "RLE"])
def test_codestream_that_announces_a_huge_image_is_not_decoded(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for decoder in ("jpeg8_decode", "jpegls_decode", "jpeg2k_decode"):
        monkeypatch.setattr(imagecodecs, decoder, lambda *_: pytest.fail("was decoded"))
    syntax, _ = STREAMS[case]
    with pytest.raises(UnreadableImageError, match="are not those"):
        decode_dicom(encapsulated(make_header(drawn(8), 8, syntax), huge(case)))


def test_codestream_of_more_bits_or_components_than_the_tags_allow_is_refused() -> None:
    deep = encapsulated(make_header(drawn(12), 8, JPEGLSLossless), imagecodecs.jpegls_encode(drawn(12)))
    with pytest.raises(UnreadableImageError, match=r"16 bits where \(0028,0100\) Bits Allocated is 8"):
        decode_dicom(deep)
    colored = imagecodecs.jpeg8_encode(np.dstack([drawn(8)] * 3))
    with pytest.raises(UnreadableImageError, match=r"3 components where \(0028,0002\) Samples per Pixel is 1"):
        decode_dicom(encapsulated(make_header(drawn(8), 8, JPEGBaseline8Bit), colored))
    with pytest.raises(UnreadableImageError, match=r"2 segments where \(0028,0100\) Bits Allocated is 8"):
        decode_dicom(encapsulated(make_header(drawn(8), 8, RLELossless), encode_rle(drawn(12))))


@pytest.mark.parametrize("case", STREAMS)
def test_bytes_that_are_no_such_image_are_refused(case: str) -> None:
    syntax, _ = STREAMS[case]
    noise = np.random.default_rng(3).bytes(4000)
    with pytest.raises(UnreadableImageError):
        decode_dicom(encapsulated(make_header(drawn(8), 8, syntax), noise))


DECODES_ALONE = """
import sys
from pathlib import Path
for name in {absent!r}:
    sys.modules[name] = None
import numpy as np
from tests.dicom_files import stored_values
for file in sorted(Path(sys.argv[1]).glob("*.dcm")):
    assert (stored_values(file.read_bytes()) == np.load(file.with_suffix(".npy"))).all(), file.name
"""


def test_every_syntax_is_decoded_where_no_other_decoder_can_be_imported(tmp_path: Path) -> None:
    for number, (syntax, bits, encode) in enumerate(LOSSLESS.values()):
        pixels = drawn(bits)
        np.save(tmp_path / f"{number}.npy", pixels)
        (tmp_path / f"{number}.dcm").write_bytes(encapsulated(make_header(pixels, bits, syntax), encode(pixels)))
    program = DECODES_ALONE.format(absent=OTHER_DECODERS)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("case", LOSSLESS)
def test_no_decoder_of_pydicoms_is_asked_where_there_are_some(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("as_array", "as_buffer", "iter_array", "iter_buffer"):
        monkeypatch.setattr(Decoder, name, lambda *_, **__: pytest.fail("pydicom was asked to decode"))
    test_lossless_pixels_come_out_bit_by_bit(case)


def test_no_other_decoder_is_among_the_dependencies() -> None:
    names = [
        each.split("==")[0] for each in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ]
    assert "imagecodecs" in names
    assert not [name for name in names if "gdcm" in name or "pylibjpeg" in name or "pyjpegls" in name]
