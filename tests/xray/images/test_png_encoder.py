"""Other programs decode an encoded PNG to the same pixels."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.phantoms import draw_phantom
from xray.images.png_encoder import encode_png


@pytest.mark.parametrize("shape", [(160, 128), (1, 1), (1, 300), (300, 1), (37, 53)])
@pytest.mark.parametrize("channels", [1, 3])
def test_two_readers_decode_the_pixels_that_went_in(shape: tuple[int, int], channels: int) -> None:
    full = shape if channels == 1 else (*shape, channels)
    pixels = np.random.default_rng(0).integers(0, 256, full, np.uint8)
    encoded = encode_png(pixels)
    with Image.open(io.BytesIO(encoded)) as image:
        image.verify()  # checks every checksum
    assert (np.asarray(Image.open(io.BytesIO(encoded))) == pixels).all()
    decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    assert (decoded == (pixels if channels == 1 else pixels[..., ::-1])).all()


def test_smooth_pictures_become_small() -> None:
    phantom = np.asarray(cv2.GaussianBlur(draw_phantom(seed=1, height=512, width=410), (0, 0), 3), np.uint8)
    assert len(encode_png(phantom)) < phantom.size / 2
