"""Reads a dataset's `annotations.csv`, and draws its boxes on the network's canvas and map.

FracAtlas has one (Abedeen et al. 2023, Scientific Data 10:521). Each line is about one image: `image` is its path in
the dataset, `hardware` is 1 if metal is visible, and `boxes` is JSON with one `[left, top, width, height]` for each
finding, as shares of the image's width and height. The last two columns are optional.

Legend: S canvas side; h, w cells of the map.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np

from xray.errors import DatasetError
from xray.images.preprocess import Placement
from xray.images.radiograph import PixelArray
from xray.mura.files import listing
from xray.mura.studies import Study, records_of
from xray.mura.tables import read_table

log = logging.getLogger(__name__)

FILE = "annotations.csv"
"""Name of the file in the dataset's folder."""
ROUNDING = 0.01
"""Share of the image's side by which a box may extend beyond the image, because its numbers are rounded."""
INSIDE_BOX = 255
"""Value of a mask's pixels in a box; as far from 0 as possible, because augmentation interpolates."""


@dataclass(frozen=True)
class Box:
    """An annotated finding's box, as shares of the image's width and height; the origin is the upper left corner."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Annotation:
    """One image's annotation in a dataset: visible metal, and the boxes of its findings.

    Attributes:
        hardware: whether metal is visible; None if the file has no such column.
        boxes: boxes of the findings; None if the file has no such column.
    """

    hardware: bool | None
    boxes: tuple[Box, ...] | None


def read_annotations(data: Path) -> Mapping[str, Annotation]:
    """Read the annotations of a dataset, by the path of the image; empty if there is no file.

    Raises:
        DatasetError: the column `image` is missing, a row cannot be read, or two rows contradict each other.
    """
    file = data / FILE
    if not file.is_file():
        return {}
    annotations: dict[str, Annotation] = {}
    for row in read_table(file):
        if not (image := row.get("image", "").replace("\\", "/")):
            raise DatasetError(
                f"{FILE} has a row without an image; its first line names the columns, one of them `image`."
            )
        annotation = _annotation(row)
        if annotations.setdefault(image, annotation) != annotation:
            raise DatasetError(f"{FILE} has rows about {image} that contradict each other.")
    return annotations


def warn_unused(annotations: Mapping[str, Annotation], split: str, studies: Sequence[Study]) -> None:
    """Log the annotated images that a split does not have, for example because the dataset's folder was renamed."""
    known = {record.path for record in records_of(studies)}
    unused = [path for path in annotations if f"/{split}/" in f"/{path}" and path not in known]
    if unused:
        log.warning(listing(sorted(unused), f"images of {FILE} are not in {split}, so their annotations are not used"))


def annotations_fingerprint(annotations: Mapping[str, Annotation]) -> str:
    """Return the SHA-256 of all annotations of a dataset."""
    return hashlib.sha256(msgspec.json.encode(sorted(annotations.items()))).hexdigest()


def boxes_of(path: str, annotations: Mapping[str, Annotation]) -> tuple[Box, ...]:
    """Return the annotated boxes of an image; empty if none are known."""
    annotation = annotations.get(path)
    return (annotation.boxes or ()) if annotation else ()


def draw_boxes(boxes: Sequence[Box], placement: Placement) -> PixelArray:
    """Draw annotated boxes as a mask (1, S, S) uint8 of the canvas, `INSIDE_BOX` or 0; a box has at least one pixel."""
    canvas_SS = np.zeros((placement.size, placement.size), np.uint8)
    (height, width), content = placement.source, placement.content
    scale = np.array([placement.scaled[1] / content.width, placement.scaled[0] / content.height])
    origin = np.array([placement.left, placement.top]) - scale * (content.left, content.top)
    for box in boxes:
        start = origin + scale * (box.left * width, box.top * height)
        first = np.floor(start.clip(0, placement.size - 1)).astype(int)
        last = np.ceil(start + scale * (box.width * width, box.height * height)).astype(int)
        canvas_SS[first[1] : max(last[1], first[1] + 1), first[0] : max(last[0], first[0] + 1)] = INSIDE_BOX
    return canvas_SS[np.newaxis]


def covered_cells(region_1SS: PixelArray, cells: int) -> np.ndarray:
    """Return which cells of a map, (h, w) bool, an image's annotated boxes cover, given the mask of the boxes.

    A cell is covered if the boxes cover at least half as much of it as of the cell that they cover most. The limit is
    relative to that cell, because a finding is often smaller than a cell.
    """
    covered_hw = cv2.resize(region_1SS[0], (cells, cells), interpolation=cv2.INTER_AREA)
    return np.asarray((covered_hw > 0) & (covered_hw >= covered_hw.max() / 2))


def _annotation(row: Mapping[str, str]) -> Annotation:
    hardware, boxes = row.get("hardware"), row.get("boxes")
    return Annotation(
        hardware=None if hardware is None else _parse_hardware(hardware, row["image"]),
        boxes=None if boxes is None else _parse_boxes(boxes, row["image"]),
    )


def _parse_hardware(written: str, image: str) -> bool:
    """Return whether metal is visible; an empty cell means that it is not."""
    known = {"": False, "0": False, "0.0": False, "1": True, "1.0": True}
    if written.strip() not in known:
        raise DatasetError(f"{FILE}, {image}: hardware is {written!r}; write 0 or 1.")
    return known[written.strip()]


def _parse_boxes(written: str, image: str) -> tuple[Box, ...]:
    """Return the boxes of a row; none for an empty cell."""
    try:
        stored = msgspec.json.decode(written.strip() or "[]", type=list[tuple[float, float, float, float]])
    except msgspec.MsgspecError as error:
        raise DatasetError(f"{FILE}, {image}: the boxes cannot be read: {error}") from error
    boxes = tuple(Box(*box) for box in stored)
    if not all(_is_inside(box) for box in boxes):
        raise DatasetError(f"{FILE}, {image}: a box extends beyond the image; write shares of the image, from 0 to 1.")
    return boxes


def _is_inside(box: Box) -> bool:
    shares = (box.left, box.top, box.width, box.height, box.left + box.width, box.top + box.height)
    return all(-ROUNDING <= share <= 1 + ROUNDING for share in shares)
