"""Measures how often the peak of a map is at a finding.

The pointing game (Zhang et al. 2016, arXiv 1608.00507), with a tolerance, because a finding may be smaller than a cell
of the map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from training.dataset.annotations import Annotation, Box, boxes_of
from training.evaluate.metrics import FloatArray, Interval, mean_with_interval
from xray.mura.studies import Study
from xray.network.cam import Cam, Region, find_regions
from xray.predictor import StudyPrediction

LONGEST_SIDE = 224
"""Longer side in pixels to which radiographs are scaled for distances; the usual input size in the literature."""
NEAR = 15
"""Maximum distance from a box in pixels that counts as near; the tolerance of the pointing game."""


@dataclass(frozen=True)
class Pointing:
    """The results of the pointing game over all radiographs with boxes.

    Attributes:
        hit: share of radiographs whose peak is in a box.
        near: share whose peak is within `NEAR` pixels of a box, with the radiograph scaled to `LONGEST_SIDE`.
        energy: mean share of the map's evidence that is in the boxes.
        overlap: mean intersection over union of the first proposed region and the box with the best overlap.
        near_by_chance: share of pixels that are near a box, the expected result of a random point.
        near_at_centre: share of radiographs whose center is near a box.
    """

    radiographs: int
    hit: Interval
    near: Interval
    energy: Interval
    overlap: Interval
    near_by_chance: float
    near_at_centre: float


class Round(NamedTuple):
    """One round of the pointing game, on one radiograph: the fields of `Pointing` before averaging."""

    hit: float
    near: float
    energy: float
    overlap: float
    near_by_chance: float
    near_at_centre: float


def measure_pointing(
    studies: Sequence[Study],
    predictions: Sequence[StudyPrediction],
    annotations: Mapping[str, Annotation],
    resamples: int,
) -> Pointing | None:
    """Play the pointing game on every radiograph with a box; None if there is none."""
    rounds: list[Round] = []
    patients: list[str] = []
    for study, prediction in zip(studies, predictions, strict=True):
        for record, each in zip(study.records, prediction.radiographs, strict=True):
            if boxes := boxes_of(record.path, annotations):
                rounds.append(play(each.cam(), boxes))
                patients.append(record.patient)
    if not rounds:
        return None
    owners, columns = np.array(patients), [np.array(column) for column in zip(*rounds, strict=True)]
    hit, near, energy, overlap = (mean_with_interval(column, owners, resamples) for column in columns[:4])
    return Pointing(len(rounds), hit, near, energy, overlap, float(columns[4].mean()), float(columns[5].mean()))


def play(cam: Cam, boxes: Sequence[Box]) -> Round:
    """Play the pointing game on the map of one radiograph."""
    height, width = shape = cam.evidence_HW.shape
    distances_HW = distances(shape, boxes)
    peak, center = np.unravel_index(cam.evidence_HW.argmax(), shape), (height // 2, width // 2)
    total = float(cam.evidence_HW.sum())
    near_HW = distances_HW <= NEAR
    return Round(
        hit=float(distances_HW[peak] == 0),
        near=float(near_HW[peak]),
        energy=float(cam.evidence_HW[distances_HW == 0].sum()) / total if total else 0.0,
        overlap=max((overlap(region, box, shape) for region in find_regions(cam)[:1] for box in boxes), default=0.0),
        near_by_chance=float(near_HW.mean()),
        near_at_centre=float(near_HW[center]),
    )


def overlap(region: Region, box: Box, shape: tuple[int, ...]) -> float:
    """Return the pointing game's intersection over union of a proposed region and a box, on a radiograph of `shape`."""
    height, width = shape
    left, top = max(region.left, box.left * width), max(region.top, box.top * height)
    right = min(region.left + region.width, (box.left + box.width) * width)
    bottom = min(region.top + region.height, (box.top + box.height) * height)
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    return shared / (region.width * region.height + box.width * width * box.height * height - shared)


def distances(shape: tuple[int, ...], boxes: Sequence[Box]) -> FloatArray:
    """Return each pixel's distance to the nearest box, (H, W), at the pointing game's scale of `LONGEST_SIDE`."""
    height, width = shape
    outside_HW = np.ones((height, width), np.uint8)
    for box in boxes:
        rows = slice(int(box.top * height), max(int(box.top * height) + 1, round((box.top + box.height) * height)))
        columns = slice(int(box.left * width), max(int(box.left * width) + 1, round((box.left + box.width) * width)))
        outside_HW[rows, columns] = 0
    distances_HW = cv2.distanceTransform(outside_HW, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distances_HW * (LONGEST_SIDE / max(shape)), np.float64)
