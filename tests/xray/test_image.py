"""Whatever the container, the same anatomy becomes the same pixels."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.phantoms import draw_phantom
from xray.errors import InputError, NoContentError, TooManyPixelsError, UnreadableImageError, UnsupportedFormatError
from xray.png import encode_png
from xray.reading import decode_radiograph

PHANTOM = draw_phantom(seed=5)
ROTATED_CLOCKWISE = 6
"""EXIF orientation: a viewer turns the stored rows a quarter clockwise."""


def saved(image: Image.Image, format_name: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


GRAY = Image.fromarray(PHANTOM)
SAME_PIXELS = {
    "gray": saved(GRAY),
    "rgb": saved(GRAY.convert("RGB")),
    "opaque rgba": saved(GRAY.convert("RGBA")),
    "opaque gray with alpha": saved(GRAY.convert("LA")),
    "16 bit": saved(Image.fromarray(PHANTOM.astype(np.uint16) * 257)),
    "palette of grays": saved(GRAY.convert("P", palette=Image.Palette.WEB)) and saved(GRAY.quantize(256)),
    "inverted": saved(Image.fromarray(255 - PHANTOM)),
}


@pytest.mark.parametrize("container", [name for name in SAME_PIXELS if name != "palette of grays"])
def test_lossless_containers_give_the_same_pixels(container: str) -> None:
    assert (decode_radiograph(SAME_PIXELS[container]).pixels == PHANTOM).all()


def test_palette_gives_nearly_the_same_pixels() -> None:
    difference = decode_radiograph(SAME_PIXELS["palette of grays"]).pixels.astype(int) - PHANTOM
    assert np.abs(difference).max() <= 8


def test_jpeg_gives_nearly_the_same_pixels() -> None:
    difference = decode_radiograph(saved(GRAY, "JPEG", quality=95)).pixels.astype(int) - PHANTOM
    assert np.abs(difference).mean() < 2


def test_twelve_bits_in_sixteen_lose_their_lowest_four() -> None:
    deep = PHANTOM.astype(np.uint16) * 16 + 9
    deep[0, 0] = 4095
    pixels = decode_radiograph(saved(Image.fromarray(deep))).pixels
    assert (pixels.ravel()[1:] == PHANTOM.ravel()[1:]).all()


def test_inverted_radiograph_is_marked_and_an_upright_one_is_not() -> None:
    assert decode_radiograph(SAME_PIXELS["inverted"]).inverted
    assert not decode_radiograph(SAME_PIXELS["gray"]).inverted


def test_transparent_pixels_are_air() -> None:
    layered = np.dstack([PHANTOM, np.where(PHANTOM > 100, 255, 0).astype(np.uint8)])
    assert (decode_radiograph(saved(Image.fromarray(layered))).pixels == np.where(PHANTOM > 100, PHANTOM, 0)).all()


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = ROTATED_CLOCKWISE
    upright = decode_radiograph(saved(GRAY, exif=exif)).pixels
    assert (upright == np.rot90(PHANTOM, -1)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_what_pillow_makes_of_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = saved(GRAY, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(stored))))
    assert (decode_radiograph(stored).pixels == expected).all()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_odd_exif_in_a_sound_image_leaves_it_as_it_is() -> None:
    for seed in range(200):
        odd = b"Exif\0\0MM\0*" + np.random.default_rng(seed).bytes(60)
        assert decode_radiograph(saved(GRAY, "JPEG", exif=odd)).pixels.size == PHANTOM.size


def test_jpeg_of_endless_scans_is_refused_before_it_is_decoded() -> None:
    progressive = saved(GRAY, "JPEG", progressive=True)
    last = progressive.rindex(b"\xff\xda")
    with pytest.raises(UnreadableImageError, match="scans"):
        decode_radiograph(progressive[:last] + progressive[last:-2] * 200 + b"\xff\xd9")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("format_name", ["PNG", "JPEG"])
def test_damaged_bytes_are_an_input_error_and_nothing_else(format_name: str) -> None:
    random = np.random.default_rng(1)
    exif = Image.Exif()
    exif[0x0112] = ROTATED_CLOCKWISE
    sound = saved(GRAY, format_name, exif=exif)
    for _ in range(400):
        damaged = bytearray(sound)
        for place in random.integers(8, len(sound), 4):
            damaged[place] = random.integers(256)
        with contextlib.suppress(InputError):
            decode_radiograph(bytes(damaged))


def test_one_bit_image_is_black_and_white() -> None:
    bilevel = Image.fromarray(PHANTOM > 150)
    assert set(np.unique(decode_radiograph(saved(bilevel)).pixels)) == {0, 255}


@pytest.mark.parametrize("format_name", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_file_is_unreadable(format_name: str, share: float) -> None:
    data = saved(GRAY, format_name)
    with pytest.raises(UnreadableImageError, match=format_name):
        decode_radiograph(data[: int(len(data) * share)])


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"GIF89a" + bytes(100), b"hello" * 50])
def test_other_bytes_are_refused_as_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedFormatError, match="PNG"):
        decode_radiograph(data)


def test_announced_pixels_beyond_the_limit_are_never_decoded() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    empty = b"IDAT" + zlib.compress(b"")
    data += struct.pack(">I", len(empty) - 4) + empty + struct.pack(">I", zlib.crc32(empty))
    with pytest.raises(TooManyPixelsError):
        decode_radiograph(data)


def test_limit_on_pixels_is_inclusive() -> None:
    assert decode_radiograph(saved(GRAY), max_pixels=PHANTOM.size).pixels.shape == PHANTOM.shape
    with pytest.raises(TooManyPixelsError, match="128x160"):
        decode_radiograph(saved(GRAY), max_pixels=PHANTOM.size - 1)


@pytest.mark.parametrize(
    "pixels",
    [np.full((64, 64), 7, np.uint8), PHANTOM[:4, :4], np.tile(PHANTOM[:20], (1, 20))],
    ids=["constant", "tiny", "ribbon"],
)
def test_image_without_content_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(NoContentError):
        decode_radiograph(saved(Image.fromarray(pixels)))


def test_encoded_png_decodes_to_itself() -> None:
    colours = np.dstack([PHANTOM, 255 - PHANTOM, PHANTOM // 2])
    assert (np.asarray(Image.open(io.BytesIO(encode_png(colours)))) == colours).all()
