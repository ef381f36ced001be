"""Maps and boxes in, how often a map points at a finding out.

The pointing game (Zhang et al. 2016, arXiv 1608.00507), with a tolerance: a finding may be smaller than a map's cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from training.annotations import Annotation, Box, boxes_of
from training.metrics import FloatArray, Interval, mean_with_interval
from xray.mura import Study
from xray.predictor import StudyPrediction
from xray.preprocess import MapArray

LONGEST_SIDE = 224
"""Pixels of a radiograph's longer side, in which distances are given."""
NEAR = 15
"""Pixels from a box that still count as near it."""


@dataclass(frozen=True)
class Pointing:
    """Over the radiographs with boxes.

    Attributes:
        hit: share whose peak lies in a box.
        near: share whose peak lies within `NEAR` pixels of one, the radiograph scaled to `LONGEST_SIDE`.
        energy: mean share of the map's evidence that lies in the boxes.
        near_by_chance: share of the pixels that are near a box, and so what a random point would reach.
        near_at_centre: share of radiographs whose centre is.
    """

    radiographs: int
    hit: Interval
    near: Interval
    energy: Interval
    near_by_chance: float
    near_at_centre: float


def pointing(
    studies: Sequence[Study],
    predictions: Sequence[StudyPrediction],
    annotations: Mapping[str, Annotation],
    resamples: int,
) -> Pointing | None:
    """The game on every radiograph with a box; None where there is none."""
    rounds, patients = [], []
    for study, prediction in zip(studies, predictions, strict=True):
        for record, each in zip(study.records, prediction.radiographs, strict=True):
            if boxes := boxes_of(record.path, annotations):
                rounds.append(play(each.cam().evidence_HW, boxes))
                patients.append(record.patient)
    if not rounds:
        return None
    columns = np.array(rounds).T
    owners = np.array(patients)
    hit, near, energy = (mean_with_interval(column, owners, resamples) for column in columns[:3])
    return Pointing(len(rounds), hit, near, energy, float(columns[3].mean()), float(columns[4].mean()))


def play(evidence_HW: MapArray, boxes: Sequence[Box]) -> tuple[float, float, float, float, float]:
    """One radiograph: whether the peak hits, whether it is near, share of energy, share of near pixels, centre near."""
    distances_HW = distances(evidence_HW.shape, boxes)
    height, width = evidence_HW.shape
    peak, centre = np.unravel_index(evidence_HW.argmax(), evidence_HW.shape), (height // 2, width // 2)
    total = float(evidence_HW.sum())
    energy = float(evidence_HW[distances_HW == 0].sum()) / total if total else 0.0
    near_HW = distances_HW <= NEAR
    return (
        float(distances_HW[peak] == 0),
        float(near_HW[peak]),
        energy,
        float(near_HW.mean()),
        float(near_HW[centre]),
    )


def distances(shape: tuple[int, ...], boxes: Sequence[Box]) -> FloatArray:
    """Of each pixel of a radiograph to the nearest box (H, W), in pixels of the radiograph scaled to `LONGEST_SIDE`."""
    height, width = shape
    outside_HW = np.ones((height, width), np.uint8)
    for box in boxes:
        rows = slice(int(box.top * height), max(int(box.top * height) + 1, round((box.top + box.height) * height)))
        columns = slice(int(box.left * width), max(int(box.left * width) + 1, round((box.left + box.width) * width)))
        outside_HW[rows, columns] = 0
    distances_HW = cv2.distanceTransform(outside_HW, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distances_HW * (LONGEST_SIDE / max(shape)), np.float64)
