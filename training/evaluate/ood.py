"""Measures how well the scope tells limbs from images of anything else."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training.evaluate.metrics import auroc
from xray.engines.batch_inference import infer_in_batches, prepare_ahead
from xray.errors import InputError
from xray.gallery.gallery import Gallery
from xray.images.decoding.decode import read_radiograph
from xray.mura.files import find_images
from xray.predictor import Prediction, Predictor, Prepared, StudyPrediction


@dataclass(frozen=True)
class Scoping:
    """What becomes of images in and out of scope.

    Attributes:
        refused: share of the dataset's radiographs that are called out of scope.
        strangers: how many other images were read; what cannot be read is refused anyway and does not count.
        strangers_refused: share of them that are called out of scope.
        auroc: of the scope's distance, strangers against the dataset's radiographs.
    """

    refused: float
    strangers: int
    strangers_refused: float
    auroc: float


def scoping(
    predictions: Sequence[StudyPrediction], predictor: Predictor, gallery: Gallery, folder: Path
) -> Scoping | None:
    """Measure on every image below a folder; None where there is none that can be read."""
    own = np.array([distance(each, gallery) for study in predictions for each in study.radiographs])
    files = find_images(folder).images.values()
    prepared = (each for each in prepare_ahead(partial(_prepare, predictor), files) if each is not None)
    passes = tqdm(infer_in_batches(predictor.engine, prepared), desc="out of scope", unit="img")
    strangers = np.array([distance(predictor.read(output, 0, each), gallery) for each, output in passes])
    if not len(strangers):
        return None
    targets = np.repeat([0, 1], [len(own), len(strangers)])
    area = auroc(targets, np.concatenate([own, strangers]))
    return Scoping(float((own > 1).mean()), len(strangers), float((strangers > 1).mean()), area)


def distance(prediction: Prediction, gallery: Gallery) -> float:
    return gallery.scope(prediction.prepared.radiograph, prediction.embedding_D).distance


def _prepare(predictor: Predictor, file: Path) -> Prepared | None:
    """The network's input for an image; None where it cannot be read."""
    try:
        return predictor.prepare(read_radiograph(file))
    except (InputError, OSError):
        return None
