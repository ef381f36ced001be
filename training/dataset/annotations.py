"""Reads from a dataset's `annotations.csv` what it says of each image beyond its study's label.

FracAtlas has one (Abedeen et al. 2023, Scientific Data 10:521): one line an image, with `image` as the dataset writes
its path, and any of the columns `hardware` (1 where metal is visible) and `boxes` (JSON, one `[left, top, width,
height]` for each finding, as shares of the image's width and height).
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from xray.errors import DatasetError
from xray.mura.files import listing
from xray.mura.studies import Study, records_of
from xray.mura.tables import read_table

log = logging.getLogger(__name__)

FILE = "annotations.csv"
ROUNDING = 0.01
"""By how much a box that was written in few digits may leave the image, as a share of it."""


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
        DatasetError: there is no column `image`, or a row cannot be read or contradicts another; names the image.
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


def say_unused(annotations: Mapping[str, Annotation], split: str, studies: Sequence[Study]) -> None:
    """Log the annotated images that are not among a split's, as where the file names the dataset otherwise."""
    known = {record.path for record in records_of(studies)}
    unused = [path for path in annotations if f"/{split}/" in f"/{path}" and path not in known]
    if unused:
        log.warning(
            listing(sorted(unused), f"images of {FILE} are not in {split}, and what it says of them is not used")
        )


def annotations_fingerprint(annotations: Mapping[str, Annotation]) -> str:
    """SHA-256 over everything that is known."""
    return hashlib.sha256(msgspec.json.encode(sorted(annotations.items()))).hexdigest()


def boxes_of(path: str, annotations: Mapping[str, Annotation]) -> tuple[Box, ...]:
    """The boxes of an image; none where none is known."""
    annotation = annotations.get(path)
    return (annotation.boxes or ()) if annotation else ()


def _annotation(row: Mapping[str, str]) -> Annotation:
    hardware, boxes, image = row.get("hardware"), row.get("boxes"), row["image"]
    return Annotation(
        None if hardware is None else _hardware(hardware, image), None if boxes is None else _boxes(boxes, image)
    )


def _hardware(written: str, image: str) -> bool:
    """Whether metal is visible; nothing says that it is not."""
    known = {"": False, "0": False, "0.0": False, "1": True, "1.0": True}
    if written.strip() not in known:
        raise DatasetError(f"{FILE}, {image}: hardware {written!r} is neither 0 nor 1.")
    return known[written.strip()]


def _boxes(written: str, image: str) -> tuple[Box, ...]:
    """The boxes of a row; an empty cell has none."""
    try:
        stored = msgspec.json.decode(written.strip() or "[]", type=list[tuple[float, float, float, float]])
    except msgspec.MsgspecError as error:
        raise DatasetError(f"{FILE}, {image}: the boxes cannot be read: {error}") from error
    boxes = tuple(Box(*box) for box in stored)
    if not all(_is_inside(box) for box in boxes):
        raise DatasetError(
            f"{FILE}, {image}: a box leaves the image; its numbers are shares of the image, from 0 to 1."
        )
    return boxes


def _is_inside(box: Box) -> bool:
    shares = (box.left, box.top, box.width, box.height, box.left + box.width, box.top + box.height)
    return all(-ROUNDING <= share <= 1 + ROUNDING for share in shares)
