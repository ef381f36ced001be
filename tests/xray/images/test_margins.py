"""Margins around a radiograph are cut off, and no part of the radiograph is."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.phantoms import draw_phantom
from xray.images.decoding.decode import decode_radiograph
from xray.images.margins import inside_margins
from xray.images.preprocess import PreprocessSpec, place, preprocess
from xray.images.radiograph import Box, PixelArray, Radiograph
from xray.network.cam import cam_on_radiograph

HEIGHT, WIDTH = 320, 256
PHANTOM = draw_phantom(seed=3, height=HEIGHT, width=WIDTH)
SIDES = {"t": 0, "b": 1, "l": 2, "r": 3}
Edges = tuple[int, int, int, int]


def framed(pixels: PixelArray, sides: str, share: float, level: int) -> tuple[PixelArray, Edges]:
    """An image with margins, and the edges of the original in it: top, bottom, left, right."""
    down, across = round(share * pixels.shape[0]), round(share * pixels.shape[1])
    widths = [(width if side in sides else 0) for side, width in zip("tblr", (down, down, across, across), strict=True)]
    image = np.pad(pixels, (widths[:2], widths[2:]), constant_values=level)
    return image, (widths[0], image.shape[0] - widths[1], widths[2], image.shape[1] - widths[3])


def edges_of(pixels: PixelArray) -> Edges:
    rows, columns = inside_margins(pixels)
    return rows.start, rows.stop, columns.start, columns.stop


def as_jpeg(pixels: PixelArray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def as_png(pixels: PixelArray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.25])
@pytest.mark.parametrize("sides", ["l", "r", "t", "b", "lr", "tb", "lrtb", "tr"])
@pytest.mark.parametrize("level", [255, 250, 128])
def test_margin_is_cut_off_whatever_its_side_width_and_brightness(sides: str, share: float, level: int) -> None:
    image, inside = framed(PHANTOM, sides, share, level)
    assert edges_of(image) == pytest.approx(inside, abs=1)


@pytest.mark.parametrize("sides", ["t", "b", "tb"])
def test_black_border_that_cuts_a_limb_off_is_cut_off(sides: str) -> None:
    image, inside = framed(PHANTOM, sides, 0.1, 0)
    assert edges_of(image) == pytest.approx(inside, abs=1)


@pytest.mark.parametrize("quality", [60, 75, 90])
@pytest.mark.parametrize("level", [255, 240])
def test_margin_in_a_jpeg_is_cut_off(quality: int, level: int) -> None:
    image, inside = framed(PHANTOM, "lrtb", 0.07, level)
    decoded = np.asarray(Image.open(io.BytesIO(as_jpeg(image, quality))))
    assert edges_of(decoded) == pytest.approx(inside, abs=2)


def test_margin_in_a_scaled_image_is_cut_off() -> None:
    image, inside = framed(PHANTOM, "lrtb", 0.1, 255)
    smaller = np.asarray(Image.fromarray(image).resize((200, 250), Image.Resampling.BICUBIC))
    scale = np.repeat([250 / image.shape[0], 200 / image.shape[1]], 2)
    assert edges_of(smaller) == pytest.approx(scale * inside, abs=3)


def test_noisy_margin_is_cut_off() -> None:
    image, inside = framed(PHANTOM, "lrtb", 0.1, 245)
    noisy = np.random.default_rng(0).normal(image, 3).clip(0, 255).astype(np.uint8)
    assert edges_of(noisy) == pytest.approx(inside, abs=1)


@pytest.mark.parametrize("letters", [0, 90])
def test_letters_stand_in_a_margin_and_are_cut_off_with_it(letters: int) -> None:
    image, inside = framed(PHANTOM, "lrtb", 0.12, 255)
    cv2.putText(image, "R 12:30", (30, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.7, letters, 2)
    cv2.putText(image, "L", (4, 200), cv2.FONT_HERSHEY_SIMPLEX, 0.8, letters, 2)
    assert edges_of(image) == pytest.approx(inside, abs=1)


def test_frame_inside_a_margin_is_cut_off_too() -> None:
    framed_once, first = framed(PHANTOM, "lrtb", 0.02, 200)
    image, second = framed(framed_once, "lrtb", 0.08, 255)
    inside = [second[0] + first[0], second[0] + first[1], second[2] + first[2], second[2] + first[3]]
    assert edges_of(image) == pytest.approx(inside, abs=2)


def test_white_margin_around_a_black_border_is_cut_off_with_it() -> None:
    bright_air = np.maximum(PHANTOM, 30)
    collimated, first = framed(bright_air, "lrtb", 0.1, 0)
    image, second = framed(collimated, "lrtb", 0.05, 255)
    inside = [second[0] + first[0], second[0] + first[1], second[2] + first[2], second[2] + first[3]]
    assert edges_of(image) == pytest.approx(inside, abs=1)


def test_borders_of_different_brightness_are_cut_off_together() -> None:
    image, first = framed(PHANTOM, "l", 0.25, 255)
    image, second = framed(image, "t", 0.25, 90)
    assert edges_of(image) == pytest.approx((second[0], second[1], first[2], first[3]), abs=1)


def test_shadow_of_a_collimator_with_a_soft_and_slanting_edge_is_cut_off() -> None:
    row, column = np.mgrid[0:HEIGHT, 0:WIDTH]
    depth = 50 + 3 * row / HEIGHT - column  # pixels inside the shadow
    shadow = np.clip(0.5 + depth / 4, 0, 1) * (225 + 0.5 * depth.clip(0, 60))
    image = np.maximum(PHANTOM, shadow).astype(np.uint8)
    top, bottom, left, right = edges_of(image)
    assert (top, bottom, right) == (0, HEIGHT, WIDTH)
    assert 48 <= left <= 60


def test_shadow_through_which_anatomy_shows_is_not_cut_off() -> None:
    image = PHANTOM.copy()
    image[250:] = 190
    for left in (20, 70, 120, 170):
        image[250:, left : left + 25] = 160
    assert edges_of(image)[1] == HEIGHT


def test_air_beside_a_limb_is_no_margin() -> None:
    for seed in range(20):
        assert edges_of(draw_phantom(seed, height=160, width=128)) == (0, 160, 0, 128)


def test_limb_that_ends_in_black_air_is_not_cut_close() -> None:
    row, column = np.mgrid[0:300, 0:300]
    tip = 200 * np.exp(-(((row - 180) / 60.0) ** 4) - ((column - 150) / 60.0) ** 4)
    assert edges_of(tip.astype(np.uint8)) == (0, 300, 0, 300)


@pytest.mark.parametrize("level", [0, 255, 128])
def test_negative_has_the_same_margins(level: int) -> None:
    for seed in range(10):
        image, _ = framed(draw_phantom(seed, height=160, width=128), "lrt", 0.1, level)
        assert edges_of(image) == edges_of(255 - image)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.25])
@pytest.mark.parametrize("sides", ["lr", "tb", "lrtb", "l"])
@pytest.mark.parametrize("level", [255, 250, 0])
def test_radiograph_in_a_margin_keeps_its_polarity_and_so_does_its_negative(
    level: int, sides: str, share: float
) -> None:
    for negative in (False, True):
        anatomy = 255 - PHANTOM if negative else PHANTOM
        image, _ = framed(anatomy, sides, share, level)
        decoded = decode_radiograph(as_png(image))
        assert decoded.inverted == negative
        assert decoded.pixels.shape == image.shape
        assert (decoded.pixels == (255 - image if negative else image)).all()


def test_canvas_of_a_radiograph_in_a_margin_is_that_of_the_radiograph_alone() -> None:
    spec = PreprocessSpec(size=160)
    image, _ = framed(PHANTOM, "lr", 0.1, 255)
    alone, framed_canvas = (
        preprocess(Radiograph.from_pixels(pixels), spec)[0].astype(int) for pixels in (PHANTOM, image)
    )
    assert np.abs(alone - framed_canvas).mean() < 1.5


def test_map_lies_on_the_uploads_own_grid_and_is_empty_in_the_margin() -> None:
    image, (top, _, left, _) = framed(PHANTOM, "lt", 0.2, 255)
    radiograph = Radiograph.from_pixels(image)
    _, placement = preprocess(radiograph, PreprocessSpec(size=160))
    row, column = top + 200, left + 100
    spot = np.zeros_like(image)
    spot[row - 4 : row + 5, column - 4 : column + 5] = 255
    evidence = cam_on_radiograph(place(spot, placement).astype(np.float32), placement).evidence_HW
    assert evidence.shape == image.shape
    assert not evidence[:top].any()
    assert not evidence[:, :left].any()
    assert np.unravel_index(evidence.argmax(), evidence.shape) == pytest.approx((row, column), abs=3)


def test_margins_are_cut_off_inside_a_display_shutter() -> None:
    image, inside = framed(PHANTOM, "lr", 0.1, 255)
    image, outside = framed(image, "tb", 0.1, 77)
    shutter = Box(outside[0], 0, outside[1] - outside[0], image.shape[1])
    radiograph = Radiograph.from_pixels(image, bone_is_dark=False, shutter=shutter)
    assert radiograph.content == Box(outside[0], inside[2], HEIGHT, WIDTH)
    assert not radiograph.inverted


def test_radiograph_without_margins_is_content_as_a_whole() -> None:
    radiograph = Radiograph.from_pixels(PHANTOM)
    assert radiograph.content is None
    assert radiograph.content_pixels is radiograph.pixels


def test_files_own_word_on_polarity_is_not_overruled() -> None:
    assert not Radiograph.from_pixels(255 - PHANTOM, bone_is_dark=False).inverted
    assert Radiograph.from_pixels(PHANTOM, bone_is_dark=True).inverted


@pytest.mark.parametrize(("height", "aspect"), [(100, 2.0), (200, 0.5), (155, 1 / 1.55)])
def test_pixels_that_are_not_square_become_square_on_the_canvas(height: int, aspect: float) -> None:
    disc = np.zeros((height, 100), np.uint8)
    axes = (30, round(30 / aspect))
    cv2.ellipse(disc, (50, height // 2), axes, 0, 0, 360, 255, -1)
    canvas, placement = preprocess(Radiograph(disc, pixel_aspect=aspect), PreprocessSpec(size=200))
    rows, columns = np.nonzero(canvas[0] > 127)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=2)
    cells = np.zeros((50, 50), np.float32)
    row, column = (int(axis.mean()) // 4 for axis in (rows, columns))
    cells[row, column] = 1
    evidence = cam_on_radiograph(cells, placement).evidence_HW
    assert evidence.shape == disc.shape
    assert np.unravel_index(evidence.argmax(), evidence.shape) == pytest.approx((height // 2, 50), abs=3)


def test_white_strips_turn_no_real_radiograph_into_a_negative(fracatlas: Path) -> None:
    files = sorted((fracatlas / "valid").rglob("*.jpg"))[::12]
    for number, file in enumerate(files):
        pixels = np.asarray(Image.open(file).convert("L")).copy()
        strip = round((0.02, 0.05, 0.1)[number % 3] * pixels.shape[1])
        pixels[:, :strip] = pixels[:, -strip:] = (255, 250)[number % 2]
        radiograph = decode_radiograph(as_jpeg(pixels, 85))
        assert not radiograph.inverted
        assert radiograph.content is not None
        assert radiograph.content.left == pytest.approx(strip, abs=0.01 * pixels.shape[1])


def test_few_real_radiographs_have_margins_and_what_is_cut_off_is_plain(fracatlas: Path, knee_oa: Path) -> None:
    files = sorted((fracatlas / "valid").rglob("*.jpg"))[::6] + sorted((knee_oa / "valid").rglob("*.jpg"))[::40]
    kept = []
    for file in files:
        radiograph = decode_radiograph(file.read_bytes())
        kept.append(radiograph.content_pixels.size / radiograph.pixels.size)
    assert np.mean(np.array(kept) < 1) < 0.3
    assert np.mean(kept) > 0.98
    assert min(kept) > 0.7
