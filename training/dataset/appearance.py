"""Varies how a canvas looks as it differs between hospitals: exposure, processing, resolution, borders and markers.

Where a network sees the images of few hospitals, it learns how they look. Each step is applied at random and leaves the
position of the anatomy unchanged.

Legend: S canvas side.
"""

from collections.abc import Callable

import cv2
import numpy as np

from xray.images.radiograph import PixelArray

Step = Callable[[PixelArray, np.random.Generator], PixelArray]

MIN_SIDE = 100
"""Smallest side in pixels that the resolution is reduced to."""
MARKERS = ("L", "R", "LEFT", "RIGHT", "AP", "LAT", "PA", "OBL", "WB", "12:04", "AB 23", "L 07", "R 3", "STANDING")
"""Texts that technologists place beside the anatomy."""


def vary_appearance(canvas_1SS: PixelArray, random: np.random.Generator) -> PixelArray:
    """Return a canvas (1, S, S) uint8 as another hospital could have acquired it."""
    image_SS = canvas_1SS[0]
    for step, probability in STEPS:
        if random.random() < probability:
            image_SS = step(image_SS, random)
    return np.ascontiguousarray(image_SS)[np.newaxis]


def _change_window(image_SS: PixelArray, random: np.random.Generator) -> PixelArray:
    """Map other gray levels to black and white."""
    black, white = random.uniform(-40, 40), random.uniform(190, 300)
    return _mapped(image_SS, (np.arange(256) - black) / (white - black))


def _change_gamma(image_SS: PixelArray, random: np.random.Generator) -> PixelArray:
    return _mapped(image_SS, (np.arange(256) / 255) ** np.exp(random.uniform(-0.7, 0.7)))


def _equalize_locally(image_SS: PixelArray, random: np.random.Generator) -> PixelArray:
    """Enhance the local contrast, as the processing of many devices does (CLAHE, Pizer et al. 1987)."""
    tiles = int(random.integers(2, 9))
    return np.asarray(cv2.createCLAHE(random.uniform(1, 4), (tiles, tiles)).apply(image_SS), np.uint8)


def _reduce_resolution(image_SS: PixelArray, random: np.random.Generator) -> PixelArray:
    side = image_SS.shape[0]
    smaller = int(np.exp(random.uniform(np.log(min(MIN_SIDE, side)), np.log(side))))
    reduced = cv2.resize(image_SS, (smaller, smaller), interpolation=cv2.INTER_AREA)
    enlarge = cv2.INTER_LINEAR if random.random() < 0.5 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(reduced, (side, side), interpolation=enlarge), np.uint8)


def _sharpen_or_blur(image_SS: PixelArray, random: np.random.Generator) -> PixelArray:
    """Add or subtract the details finer than a random scale (unsharp masking)."""
    blurred_SS = cv2.GaussianBlur(image_SS, (0, 0), random.uniform(0.6, 4)).astype(np.float32)
    amount = random.uniform(-0.7, 1.5)
    return _clipped(image_SS + amount * (image_SS - blurred_SS))


def _add_noise(image_SS: PixelArray, random: np.random.Generator) -> PixelArray:
    noise_SS: np.ndarray = random.standard_normal(image_SS.shape, np.float32)
    if random.random() < 0.5:
        noise_SS = cv2.GaussianBlur(noise_SS, (0, 0), random.uniform(0.5, 1.2)) * 2
    return _clipped(image_SS + random.uniform(1, 12) * noise_SS)


def _compress(image_SS: PixelArray, random: np.random.Generator) -> PixelArray:
    """Compress as JPEG of low to usual quality."""
    quality = int(random.integers(15, 90))
    encoded = cv2.imencode(".jpg", image_SS, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)


def _collimate(image_SS: PixelArray, random: np.random.Generator) -> PixelArray:
    """Cover what is outside a rotated rectangle with black, white or a gray level."""
    side = image_SS.shape[0]
    center = side * random.uniform(0.44, 0.56, 2)
    extent = side * random.uniform(0.72, 1.1, 2)
    corners = cv2.boxPoints((tuple(center), tuple(extent), random.uniform(-12, 12))).astype(np.int32)
    inside_SS = cv2.fillConvexPoly(np.zeros_like(image_SS), corners, 1)
    level = random.choice([0, 0, 0, 255, int(random.integers(0, 256))])
    return np.where(inside_SS == 1, image_SS, np.uint8(level))


def _place_markers(image_SS: PixelArray, random: np.random.Generator) -> PixelArray:
    """Write one to three markers near the borders."""
    marked_SS, side = image_SS.copy(), image_SS.shape[0]
    for _ in range(int(random.integers(1, 4))):
        scale, level = random.uniform(0.3, 1.4) * side / 320, int(random.integers(150, 256))
        along, away = random.uniform(0.02, 0.9), random.uniform(0.02, 0.15)
        x, y = (along, away) if random.random() < 0.5 else (away, along)
        x, y = (1 - x if random.random() < 0.5 else x), (1 - y if random.random() < 0.5 else y)
        place, text = (int(x * side), int(y * side)), str(random.choice(MARKERS))
        cv2.putText(marked_SS, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, level, max(1, round(2 * scale)))
    return marked_SS


def _insert_view(image_SS: PixelArray, random: np.random.Generator) -> PixelArray:
    """Cover a corner with a small copy of the radiograph, as teaching files do."""
    side = image_SS.shape[0]
    small = int(side * random.uniform(0.15, 0.3))
    left, top = (0 if random.random() < 0.5 else side - small for _ in range(2))
    covered_SS = image_SS.copy()
    covered_SS[top : top + small, left : left + small] = cv2.resize(
        image_SS, (small, small), interpolation=cv2.INTER_AREA
    )
    return covered_SS


def _invert(image_SS: PixelArray, random: np.random.Generator) -> PixelArray:
    """Show bones dark, as a file without its polarity does."""
    return 255 - image_SS


STEPS: tuple[tuple[Step, float], ...] = (
    (_equalize_locally, 0.2),
    (_change_window, 0.5),
    (_change_gamma, 0.4),
    (_sharpen_or_blur, 0.3),
    (_collimate, 0.2),
    (_insert_view, 0.03),
    (_place_markers, 0.3),
    (_invert, 0.05),
    (_add_noise, 0.3),
    (_reduce_resolution, 0.4),
    (_compress, 0.4),
)
"""The steps in the order in which a radiograph passes them, and the probability of each."""


def _mapped(image_SS: PixelArray, shares_256: np.ndarray) -> PixelArray:
    """Apply a table of new gray levels, as shares of the gray range."""
    return np.asarray(_clipped(255 * shares_256)[image_SS])


def _clipped(values: np.ndarray) -> PixelArray:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
