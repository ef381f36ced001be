"""Draws the studies with the largest errors, for the page of an evaluation."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from training.dataset.annotations import Annotation, Box, boxes_of
from xray.images.png_encoder import encode_png
from xray.mura.studies import Study
from xray.network.cam import render
from xray.predictor import Prediction, StudyPrediction

MAX_SHOWN = 8
"""Maximum number of studies on the page: two rows."""
ALPHA = 0.5
"""Opacity of the heatmap at its peak; the service's default."""
BOX_COLOR = (255, 255, 255)
"""RGB color of a box: white, which does not occur in the heatmap."""
LONGEST_SIDE = 360
"""Longer side of a picture in pixels; with eight pictures, the page has about a megabyte."""


@dataclass(frozen=True)
class Mistake:
    """One of an evaluation's worst cases: a study that the network misclassified.

    Attributes:
        label: label in the dataset.
        probability: probability from the network.
        picture: PNG data URL of the radiograph with the largest weight, with overlay and boxes.
    """

    study: str
    label: str
    probability: float
    picture: str


def worst_mistakes(
    studies: Sequence[Study], predictions: Sequence[StudyPrediction], annotations: Mapping[str, Annotation]
) -> list[Mistake]:
    """Return the worst cases: the studies whose probability is farthest from their target, worst first."""
    wrong = np.array([abs(p.probability - s.target) for s, p in zip(studies, predictions, strict=True)])
    mistakes = []
    for number in np.argsort(-wrong, kind="stable")[:MAX_SHOWN]:
        study, prediction = studies[number], predictions[number]
        view = int(np.argmax(prediction.weights))
        picture = _picture(prediction.radiographs[view], boxes_of(study.records[view].path, annotations))
        mistakes.append(Mistake(study.key, study.records[0].label, prediction.probability, picture))
    return mistakes


def _picture(prediction: Prediction, boxes: Sequence[Box]) -> str:
    """Return the PNG data URL of a radiograph with overlay and boxes."""
    pixels = np.array(render(prediction.cam(), prediction.prepared.radiograph, "overlay", ALPHA))
    height, width = pixels.shape[:2]
    for box in boxes:
        first = round(box.left * width), round(box.top * height)
        last = round((box.left + box.width) * width), round((box.top + box.height) * height)
        cv2.rectangle(pixels, first, last, BOX_COLOR, thickness=max(1, max(height, width) // 256))
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return f"data:image/png;base64,{base64.b64encode(encode_png(np.asarray(small, np.uint8))).decode()}"
