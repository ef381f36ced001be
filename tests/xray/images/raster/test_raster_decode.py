"""The same anatomy becomes the same pixels in any container."""

import contextlib
import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.phantoms import draw_phantom
from xray.errors import InputError, NoContentError, TooManyPixelsError, UnreadableImageError, UnsupportedFormatError
from xray.images.decoding.decode import decode_radiograph, decoding_effort
from xray.images.png_encoder import encode_png
from xray.images.raster.decode import UNKNOWN_EFFORT

PHANTOM = draw_phantom(seed=5)
ROTATED_CLOCKWISE = 6
"""The EXIF orientation for which a viewer turns the image clockwise by 90 degrees."""


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
    colors = np.dstack([PHANTOM, 255 - PHANTOM, PHANTOM // 2])
    assert (np.asarray(Image.open(io.BytesIO(encode_png(colors)))) == colors).all()


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def deep_png(samples: np.ndarray, color_type: int, *extras: bytes) -> bytes:
    """A PNG of 16 bits, which Pillow cannot write in color."""
    rows = samples.astype(">u2").reshape(len(samples), -1)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, color_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [chunk(b"IHDR", header), *extras, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def with_extras(data: bytes, *extras: bytes) -> bytes:
    """A PNG with further chunks after its header."""
    return data[:33] + b"".join(extras) + data[33:]


TWELVE_BITS = PHANTOM.astype(np.uint16) << 4 | 9
OPAQUE = np.full_like(TWELVE_BITS, 0xFFFF)


@pytest.mark.parametrize(
    ("samples", "color_type"),
    [
        (TWELVE_BITS, 0),
        (np.dstack([TWELVE_BITS] * 3), 2),
        (np.dstack([TWELVE_BITS, OPAQUE]), 4),
        (np.dstack([TWELVE_BITS] * 3 + [OPAQUE]), 6),
        (TWELVE_BITS << 4, 0),
        (np.dstack([TWELVE_BITS << 4] * 3), 2),
    ],
    ids=["gray", "rgb", "gray with alpha", "rgba", "16 bits of gray", "16 bits of rgb"],
)
def test_deep_png_keeps_eight_bits_of_what_it_uses(samples: np.ndarray, color_type: int) -> None:
    radiograph = decode_radiograph(deep_png(samples, color_type))
    assert (radiograph.pixels == PHANTOM).all()
    assert radiograph.color_share == 0


def test_deep_transparent_pixels_are_air() -> None:
    alpha = np.where(PHANTOM > 100, 0xFFFF, 0).astype(np.uint16)
    expected = np.where(PHANTOM > 100, PHANTOM, 0)
    for samples, color_type in (
        (np.dstack([TWELVE_BITS, alpha]), 4),
        (np.dstack([TWELVE_BITS] * 3 + [alpha]), 6),
    ):
        assert (decode_radiograph(deep_png(samples, color_type)).pixels == expected).all()


def test_level_that_a_deep_gray_png_calls_transparent_is_air() -> None:
    level = int(TWELVE_BITS[80, 64])
    transparent = chunk(b"tRNS", struct.pack(">H", level))
    pixels = decode_radiograph(deep_png(TWELVE_BITS, 0, transparent)).pixels
    assert (pixels == np.where(level == TWELVE_BITS, 0, PHANTOM)).all()


def test_deep_color_is_told_from_gray() -> None:
    vivid = np.dstack([TWELVE_BITS, 4095 - TWELVE_BITS, TWELVE_BITS])
    assert decode_radiograph(deep_png(vivid, 2)).color_share > 0.5


@pytest.mark.parametrize("hot", [0x3FFF, 0xFFFF])
def test_few_hot_pixels_take_no_levels_from_the_others(hot: int) -> None:
    deep = TWELVE_BITS.copy()
    deep[3, 3] = deep[100, 50] = hot
    pixels = decode_radiograph(saved(Image.fromarray(deep))).pixels
    assert (pixels == PHANTOM)[deep < hot].all()
    assert (pixels[deep == hot] == 255).all()


def test_bright_border_of_a_deep_image_takes_no_levels_from_the_content() -> None:
    deep = np.pad(TWELVE_BITS, 9, constant_values=0xFFFF)
    radiograph = decode_radiograph(saved(Image.fromarray(deep)))
    assert (radiograph.content_pixels == PHANTOM).all()
    assert not radiograph.inverted


def test_burnt_in_letters_of_a_deep_image_take_no_levels_from_the_rest() -> None:
    deep = TWELVE_BITS.copy()
    deep[10:16, 10:40] = 0xFFFF
    pixels = decode_radiograph(saved(Image.fromarray(deep))).pixels
    assert (pixels == PHANTOM)[deep < 0xFFFF].all()


def test_bright_metal_of_a_deep_image_is_no_stray_pixel() -> None:
    deep = TWELVE_BITS.copy()
    deep[40:80, 60:66] = np.linspace(20_000, 65_000, 240).reshape(40, 6).astype(np.uint16)
    pixels = decode_radiograph(saved(Image.fromarray(deep))).pixels
    assert len(np.unique(pixels[40:80, 60:66])) > 100


def test_narrow_band_far_above_zero_is_spread() -> None:
    offset = (TWELVE_BITS.astype(np.int32) + 32_768).astype(np.uint16)
    pixels = decode_radiograph(saved(Image.fromarray(offset))).pixels
    assert np.corrcoef(pixels.ravel(), PHANTOM.ravel())[0, 1] > 0.999
    assert len(np.unique(pixels)) > 150


LARGE_TEXT = {
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 << 20))),
    "iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * (3 << 20))),
    "tEXt": chunk(b"tEXt", b"Comment\0" + b"a" * (3 << 20)),
    "iCCP": chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(3 << 20))),
    "wrong checksum": chunk(b"tEXt", b"a\0b", checksum=1),
    "unknown": chunk(b"prVt", b"whatever"),
}


@pytest.mark.parametrize("extra", LARGE_TEXT.values(), ids=LARGE_TEXT)
def test_png_is_shown_whatever_stands_beside_its_picture(extra: bytes) -> None:
    assert (decode_radiograph(with_extras(saved(GRAY), extra)).pixels == PHANTOM).all()


@pytest.mark.parametrize("compressed", [True, False])
def test_orientation_in_large_xmp_is_applied(compressed: bool) -> None:
    xmp = b" " * (2 << 20) + b'<rdf tiff:Orientation="6"/>'
    text = b"XML:com.adobe.xmp\0" + bytes([compressed, 0]) + b"\0\0" + (zlib.compress(xmp) if compressed else xmp)
    assert (decode_radiograph(with_extras(saved(GRAY), chunk(b"iTXt", text))).pixels == np.rot90(PHANTOM, -1)).all()


def test_orientation_in_a_text_chunk_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = ROTATED_CLOCKWISE
    profile = exif.tobytes()
    text = b"Raw profile type exif\0\nexif\n%8d\n" % len(profile) + profile.hex().encode()
    assert (decode_radiograph(with_extras(saved(GRAY), chunk(b"tEXt", text))).pixels == np.rot90(PHANTOM, -1)).all()


def test_png_whose_pixels_have_a_wrong_checksum_is_refused() -> None:
    data = bytearray(saved(GRAY))
    end = data.rindex(b"IEND") - 8
    data[end : end + 4] = b"\1\2\3\4"
    with pytest.raises(UnreadableImageError, match="PNG"):
        decode_radiograph(bytes(data))


def test_density_that_says_that_pixels_are_not_square_is_ignored() -> None:
    physical = chunk(b"pHYs", struct.pack(">IIB", 1000, 3000, 1))
    assert decode_radiograph(with_extras(saved(GRAY), physical)).pixel_aspect == 1
    assert decode_radiograph(saved(GRAY, "JPEG", dpi=(100, 300))).pixel_aspect == 1


JPEG = saved(GRAY, "JPEG", quality=95)
NO_SCANS = b"\xff\xda" * 300
EXTRA_BYTES = {
    "in a comment": JPEG[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(NO_SCANS)) + NO_SCANS + JPEG[2:],
    "in a profile": JPEG[:2] + b"\xff\xe1" + struct.pack(">H", 8 + len(NO_SCANS)) + b"other\0" + NO_SCANS + JPEG[2:],
    "in a video behind it": JPEG + b"\0\0\0\x18ftypmp42" + NO_SCANS,
}


@pytest.mark.parametrize("data", EXTRA_BYTES.values(), ids=EXTRA_BYTES)
def test_bytes_that_only_look_like_scans_are_not_counted(data: bytes) -> None:
    assert (decode_radiograph(data).pixels == decode_radiograph(JPEG).pixels).all()
    assert decoding_effort(data) == decoding_effort(JPEG) == PHANTOM.size


def test_second_picture_behind_a_jpeg_is_left_alone() -> None:
    both = saved(GRAY.convert("RGB"), "MPO", save_all=True, append_images=[Image.new("RGB", GRAY.size)], quality=95)
    assert np.abs(decode_radiograph(both).pixels.astype(int) - PHANTOM).mean() < 2


ODD_JPEGS = {
    "12 bits": imagecodecs.jpeg_encode(TWELVE_BITS, level=98, bitspersample=12),
    "12 bits in color": imagecodecs.jpeg_encode(np.dstack([TWELVE_BITS] * 3), level=98, bitspersample=12),
    "lossless of 12 bits": imagecodecs.jpeg_encode(TWELVE_BITS, lossless=True, bitspersample=12),
    "lossless of 16 bits": imagecodecs.jpeg_encode(TWELVE_BITS << 4, lossless=True, bitspersample=16),
    "lossless of 8 bits": imagecodecs.jpeg_encode(PHANTOM, lossless=True, bitspersample=8),
    "JPEG-LS of 12 bits": imagecodecs.jpegls_encode(TWELVE_BITS),
    "JPEG-LS of 8 bits": imagecodecs.jpegls_encode(PHANTOM),
}


@pytest.mark.parametrize("data", ODD_JPEGS.values(), ids=ODD_JPEGS)
def test_rare_kind_of_jpeg_is_decoded_and_counts_as_costly(data: bytes) -> None:
    radiograph = decode_radiograph(data)
    assert np.abs(radiograph.pixels.astype(int) - PHANTOM).max() <= 2
    assert radiograph.color_share == 0
    assert decoding_effort(data) == UNKNOWN_EFFORT


@pytest.mark.parametrize("data", ODD_JPEGS.values(), ids=ODD_JPEGS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_rare_kind_of_jpeg_that_is_truncated_is_not_filled_up(data: bytes, share: float) -> None:
    with pytest.raises(UnreadableImageError):
        decode_radiograph(data[: int(len(data) * share)])


@pytest.mark.parametrize("data", ODD_JPEGS.values(), ids=ODD_JPEGS)
def test_rare_kind_of_jpeg_that_is_damaged_is_an_input_error_and_nothing_else(data: bytes) -> None:
    random = np.random.default_rng(1)
    for _ in range(30):
        damaged = bytearray(data)
        for place in random.integers(8, len(data), 4):
            damaged[place] = random.integers(256)
        with contextlib.suppress(InputError):
            decoding_effort(bytes(damaged))
            decode_radiograph(bytes(damaged))


@pytest.mark.parametrize("name", ["12 bits", "lossless of 12 bits"])
def test_orientation_of_a_rare_kind_of_jpeg_is_applied(name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = ROTATED_CLOCKWISE
    profile, data = exif.tobytes(), bytes(ODD_JPEGS[name])
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(profile)) + profile + data[2:]
    assert (decode_radiograph(turned).pixels == np.rot90(decode_radiograph(data).pixels, -1)).all()


@pytest.mark.parametrize(
    ("frame", "name"),
    [(0xC5, "differential sequential"), (0xC7, "differential lossless"), (0xCB, "arithmetic lossless")],
)
def test_jpeg_of_a_process_that_is_not_read_is_refused_by_its_name(frame: int, name: str) -> None:
    data = bytearray(JPEG)
    data[data.index(b"\xff\xc0") + 1] = frame
    with pytest.raises(UnsupportedFormatError, match=name):
        decode_radiograph(bytes(data))


def test_effort_of_damaged_headers_is_nothing_or_a_number() -> None:
    for data in (JPEG, saved(GRAY), deep_png(TWELVE_BITS, 0)):
        for length in range(0, 300, 7):
            assert decoding_effort(data[:length]) >= 0


def test_file_of_endless_chunks_or_segments_is_refused_without_walking_them_all() -> None:
    endless_png = with_extras(saved(GRAY), chunk(b"tEXt", b"") * 200_000)
    endless_jpeg = JPEG[:2] + b"\xff\xfe\0\2" * 50_000 + JPEG[2:]
    for data in (endless_png, endless_jpeg):
        with pytest.raises(UnreadableImageError):
            decode_radiograph(data)
    assert decoding_effort(endless_jpeg) == 0
