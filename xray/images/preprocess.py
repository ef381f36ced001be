"""A radiograph in, the network's square input out, and the way back for maps.

Two frames: the *radiograph's* (H, W) pixel grid and the network's square *canvas* of S x S pixels. The canvas shows the
radiograph's content, without margins, in square pixels. A `Placement` says where the scaled content lies on the canvas,
`place` goes one way and `restore` comes back.

Legend: H, W radiograph; S canvas; h, w feature map.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from xray.images.edge_crop import canny
from xray.images.radiograph import Box, PixelArray, Radiograph
from xray.images.resample import resample

IMAGENET_MEAN = 0.449
IMAGENET_STD = 0.226
"""Means over ImageNet's three channels, in units of the full gray range: a radiograph has but one channel."""
MIN_SIZE, MAX_SIZE = 32, 2048
"""Canvas sides in pixels: from one cell of the last feature map to more than a whole joint needs."""
CANNY_LOW, CANNY_HIGH = 50, 150
"""Gray levels per pixel: the gradient thresholds of the edge detector behind `densest-edge`."""

PREPROCESS_VERSION = 2
"""Which canvas the same file gives; raise it with every change from bytes to canvas. 2 cuts margins off, makes pixels
square, and keeps the levels of deep images. A gallery made in another version has to be built again."""

MapArray = npt.NDArray[np.float32]
Framing = Literal["letterbox", "densest-edge"]


@dataclass(frozen=True)
class PreprocessSpec:
    """How a radiograph becomes the network's input; it travels in the checkpoint's manifest.

    Attributes:
        size: S, the canvas side in pixels.
        framing: `letterbox` shows the whole radiograph with dark bars; `densest-edge` fills the canvas with the
            window that holds the most Canny edges. Both keep the aspect ratio.
        mean, std: gray levels as a share of the full range, subtracted and divided inside the network.
    """

    size: int = 320
    framing: Framing = "letterbox"
    mean: float = IMAGENET_MEAN
    std: float = IMAGENET_STD

    def __post_init__(self) -> None:
        if not MIN_SIZE <= self.size <= MAX_SIZE or not self.std > 0:
            raise ValueError(f"size must be {MIN_SIZE} to {MAX_SIZE} and std above 0, not {self.size} and {self.std}")


@dataclass(frozen=True)
class Placement:
    """Where the scaled radiograph lies on the canvas.

    Attributes:
        source: (H, W) of the radiograph.
        content: the part of it that is scaled.
        scaled: (height, width) of the content after scaling, in canvas pixels.
        top, left: canvas position of its first pixel; negative where the canvas shows only a window of it.
        size: S.
    """

    source: tuple[int, int]
    content: Box
    scaled: tuple[int, int]
    top: int
    left: int
    size: int


def preprocess(radiograph: Radiograph, spec: PreprocessSpec) -> tuple[PixelArray, Placement]:
    """The network's input (1, S, S) uint8, and the way back. Training, indexing and serving all come through here."""
    placement = locate(radiograph, spec)
    return place(radiograph.pixels, placement)[np.newaxis], placement


def locate(radiograph: Radiograph, spec: PreprocessSpec) -> Placement:
    """Decide where the radiograph's content goes on the canvas, and in which size."""
    source = radiograph.height, radiograph.width
    content = radiograph.content or Box(0, 0, *source)
    shape = content.height * radiograph.pixel_aspect, float(content.width)  # in units of a pixel's width
    if spec.framing == "letterbox":
        scaled = _scale_to(shape, spec.size / max(shape))
        top, left = ((spec.size - side) // 2 for side in scaled)
        return Placement(source, content, scaled, top, left, spec.size)
    scaled = _scale_to(shape, spec.size / min(shape))
    top, left = _densest_window(_resize(radiograph.content_pixels, scaled), spec.size)
    return Placement(source, content, scaled, -top, -left, spec.size)


def place(pixels_HW: PixelArray, placement: Placement) -> PixelArray:
    """Radiograph frame to canvas: (H, W) uint8 to (S, S) uint8; what the content does not cover is air."""
    canvas_SS = np.zeros((placement.size, placement.size), np.uint8)
    rows, scaled_rows = _overlap(placement.top, placement.scaled[0], placement.size)
    columns, scaled_columns = _overlap(placement.left, placement.scaled[1], placement.size)
    content_hw = pixels_HW[placement.content.rows, placement.content.columns]
    canvas_SS[rows, columns] = _resize(content_hw, placement.scaled)[scaled_rows, scaled_columns]
    return canvas_SS


def restore(map_hw: MapArray, placement: Placement) -> MapArray:
    """Canvas to radiograph frame: a map (h, w) float32 laid over the whole canvas to (H, W) float32.

    Bilinear between the centres of the map's cells; 0 where the canvas did not show the radiograph.
    """
    content, size = placement.content, placement.size
    rows_Hh = _sampling_matrix(content.height, placement.scaled[0], placement.top, size, map_hw.shape[0])
    columns_Ww = _sampling_matrix(content.width, placement.scaled[1], placement.left, size, map_hw.shape[1])
    restored_HW = np.zeros(placement.source, np.float32)
    restored_HW[content.rows, content.columns] = rows_Hh @ map_hw @ columns_Ww.T
    return restored_HW


def _scale_to(shape: tuple[float, float], factor: float) -> tuple[int, int]:
    height, width = (max(1, round(side * factor)) for side in shape)
    return height, width


def _resize(pixels_HW: PixelArray, scaled: tuple[int, int]) -> PixelArray:
    """Area averaging when shrinking, so that hairline fractures fade rather than alias; bilinear when growing."""
    return np.asarray(np.rint(resample(pixels_HW, scaled)), np.uint8)


def _densest_window(scaled_pixels: PixelArray, size: int) -> tuple[int, int]:
    """Top and left of the size x size window with the most edges; the most central of equals."""
    edges = canny(scaled_pixels, CANNY_LOW, CANNY_HIGH)
    counts = np.pad(edges.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    in_window = counts[size:, size:] - counts[:-size, size:] - counts[size:, :-size] + counts[:-size, :-size]
    tops, lefts = np.nonzero(in_window == in_window.max())
    off_centre = np.abs(tops - in_window.shape[0] // 2) + np.abs(lefts - in_window.shape[1] // 2)
    best = int(off_centre.argmin())
    return int(tops[best]), int(lefts[best])


def _overlap(offset: int, length: int, size: int) -> tuple[slice, slice]:
    """Slices of the canvas axis and of the scaled axis where both exist."""
    start, stop = max(0, offset), min(size, offset + length)
    return slice(start, stop), slice(start - offset, stop - offset)


def _sampling_matrix(length: int, scaled: int, offset: int, size: int, cells: int) -> MapArray:
    """One axis of `restore`: (length, cells) weights that read each source pixel from the map's cells."""
    on_canvas = (np.arange(length) + 0.5) * scaled / length + offset
    at_cell = np.clip(on_canvas * cells / size - 0.5, 0, cells - 1)
    weights = np.maximum(0, 1 - np.abs(at_cell[:, np.newaxis] - np.arange(cells)))
    weights[(on_canvas < 0) | (on_canvas > size)] = 0
    return np.asarray(weights, np.float32)
