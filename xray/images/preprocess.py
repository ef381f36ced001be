"""Transforms a radiograph to the network's square input, and maps from there back to the radiograph.

There are two frames: the (H, W) pixel grid of the *radiograph*, and the network's square *canvas* of S x S pixels. The
canvas shows the content of the radiograph, without margins, in square pixels. A `Placement` says where the scaled
content lies on the canvas; `place` maps to the canvas, and `restore` maps back.

Legend: H, W radiograph; S canvas; h, w feature map.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from xray.images.canny import canny
from xray.images.radiograph import Box, PixelArray, Radiograph
from xray.images.resample import resample

IMAGENET_MEAN = 0.449
IMAGENET_STD = 0.226
"""Mean and standard deviation of ImageNet, averaged over its three channels, as a share of the full gray range."""
MIN_SIZE, MAX_SIZE = 32, 2048
"""Limits on the canvas side in pixels: the minimum is one cell of the last feature map."""
CANNY_LOW, CANNY_HIGH = 50, 150
"""Gradient thresholds of the edge detector for `densest-edge`, in gray levels as OpenCV counts them."""

PREPROCESS_VERSION = 2
"""Version of the transform from file to canvas; increase it with every change, and rebuild galleries. Version 2 cuts
off margins, makes pixels square, and keeps the gray levels of images with more than 8 bits."""

MapArray = npt.NDArray[np.float32]
Framing = Literal["letterbox", "densest-edge"]


@dataclass(frozen=True)
class PreprocessSpec:
    """The transform from a radiograph to the network's input; it is part of a checkpoint's manifest.

    Attributes:
        size: S, the canvas side in pixels.
        framing: `letterbox` shows the whole content with dark bars; `densest-edge` fills the canvas with the window
            that contains the most Canny edges. Both keep the aspect ratio.
        mean, std: the normalization inside the network, as shares of the full gray range.
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
    """The position of a radiograph's scaled content on the network's canvas.

    Attributes:
        source: size of the radiograph, (H, W).
        content: the part of the radiograph that is scaled.
        scaled: size of the content after scaling, (height, width) in canvas pixels.
        top, left: canvas position of its first pixel; negative if the canvas shows only a window of it.
        size: S.
    """

    source: tuple[int, int]
    content: Box
    scaled: tuple[int, int]
    top: int
    left: int
    size: int


def preprocess(radiograph: Radiograph, spec: PreprocessSpec) -> tuple[PixelArray, Placement]:
    """Preprocess a radiograph to the network's input (1, S, S) uint8, and the placement for `restore`.

    Training, indexing and serving all use this function.
    """
    placement = compute_placement(radiograph, spec)
    return place(radiograph.pixels, placement)[np.newaxis], placement


def compute_placement(radiograph: Radiograph, spec: PreprocessSpec) -> Placement:
    """Compute the position and size of a radiograph's content on the network's canvas."""
    source = radiograph.height, radiograph.width
    content = radiograph.content or Box(0, 0, *source)
    shape = content.height * radiograph.pixel_aspect, float(content.width)  # in pixel widths
    if spec.framing == "letterbox":
        scaled = _scale_to(shape, spec.size / max(shape))
        top, left = ((spec.size - side) // 2 for side in scaled)
        return Placement(source, content, scaled, top, left, spec.size)
    scaled = _scale_to(shape, spec.size / min(shape))
    top, left = _densest_window(_resize(radiograph.content_pixels, scaled), spec.size)
    return Placement(source, content, scaled, -top, -left, spec.size)


def place(pixels_HW: PixelArray, placement: Placement) -> PixelArray:
    """Map from the radiograph to the network's canvas, which is black elsewhere: (H, W) uint8 to (S, S) uint8."""
    canvas_SS = np.zeros((placement.size, placement.size), np.uint8)
    rows, scaled_rows = _overlap(placement.top, placement.scaled[0], placement.size)
    columns, scaled_columns = _overlap(placement.left, placement.scaled[1], placement.size)
    content_hw = pixels_HW[placement.content.rows, placement.content.columns]
    canvas_SS[rows, columns] = _resize(content_hw, placement.scaled)[scaled_rows, scaled_columns]
    return canvas_SS


def restore(map_hw: MapArray, placement: Placement) -> MapArray:
    """Map from the network's canvas back to the radiograph: (h, w) float32, which covers the canvas, to (H, W) float32.

    Values are interpolated bilinearly between the centers of cells; 0 where the canvas does not show the radiograph.
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
    """Scale by area averaging, so that hairline fractures fade instead of aliasing, or enlarge bilinearly."""
    return np.asarray(np.rint(resample(pixels_HW, scaled)), np.uint8)


def _densest_window(scaled_pixels: PixelArray, size: int) -> tuple[int, int]:
    """Return top and left of the size x size window with the most edges; the most central one if several are equal."""
    edges = canny(scaled_pixels, CANNY_LOW, CANNY_HIGH)
    counts = np.pad(edges.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    in_window = counts[size:, size:] - counts[:-size, size:] - counts[size:, :-size] + counts[:-size, :-size]
    tops, lefts = np.nonzero(in_window == in_window.max())
    off_center = np.abs(tops - in_window.shape[0] // 2) + np.abs(lefts - in_window.shape[1] // 2)
    best = int(off_center.argmin())
    return int(tops[best]), int(lefts[best])


def _overlap(offset: int, length: int, size: int) -> tuple[slice, slice]:
    """Return the overlap of canvas and scaled content on one axis, as a slice of each."""
    start, stop = max(0, offset), min(size, offset + length)
    return slice(start, stop), slice(start - offset, stop - offset)


def _sampling_matrix(length: int, scaled: int, offset: int, size: int, cells: int) -> MapArray:
    """Return the weights (length, cells) of a map's cells for each pixel of the content, for one axis of `restore`."""
    on_canvas = (np.arange(length) + 0.5) * scaled / length + offset
    at_cell = np.clip(on_canvas * cells / size - 0.5, 0, cells - 1)
    weights = np.maximum(0, 1 - np.abs(at_cell[:, np.newaxis] - np.arange(cells)))
    weights[(on_canvas < 0) | (on_canvas > size)] = 0
    return np.asarray(weights, np.float32)
