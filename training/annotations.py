"""A dataset's `annotations.csv` in, what it says of each image beyond its study's label out.

FracAtlas has one (Abedeen et al. 2023, Scientific Data 10:521): one line an image, with `image` as the dataset writes
its path, and any of the columns `hardware` (1 where metal is visible) and `boxes` (JSON, one `[left, top, width,
height]` for each finding, as shares of the image's width and height).
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from xray.errors import DatasetError

FILE = "annotations.csv"


@dataclass(frozen=True)
class Box:
    """Where a finding lies, as shares of the image's width and height; the origin is its upper left corner."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Annotation:
    """What is known of one image; None where the dataset has no such column."""

    hardware: bool | None
    boxes: tuple[Box, ...] | None


def read_annotations(data: Path) -> Mapping[str, Annotation]:
    """The annotations of a dataset by the path of the image; empty where nobody wrote any.

    Raises:
        DatasetError: a row's boxes cannot be read; names the image.
    """
    file = data / FILE
    if not file.is_file():
        return {}
    with file.open(newline="", encoding="utf-8-sig") as lines:
        return {row["image"]: _annotation(row) for row in csv.DictReader(lines) if "image" in row}


def boxes_of(path: str, annotations: Mapping[str, Annotation]) -> tuple[Box, ...]:
    """The boxes of an image; none where none is known."""
    annotation = annotations.get(path)
    return (annotation.boxes or ()) if annotation else ()


def _annotation(row: Mapping[str, str]) -> Annotation:
    hardware, boxes = row.get("hardware"), row.get("boxes")
    return Annotation(
        None if hardware is None else hardware == "1", None if boxes is None else _boxes(boxes, row["image"])
    )


def _boxes(written: str, image: str) -> tuple[Box, ...]:
    try:
        return tuple(Box(*box) for box in msgspec.json.decode(written, type=list[tuple[float, float, float, float]]))
    except msgspec.MsgspecError as error:
        raise DatasetError(f"{FILE}, {image}: the boxes cannot be read: {error}") from error
