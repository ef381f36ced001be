"""Measures how well a checkpoint's scope separates radiographs of limbs from other images."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from tqdm import tqdm

from training.evaluate.metrics import auroc
from xray.engines.batch_inference import infer_in_batches, prepare_ahead
from xray.errors import InputError
from xray.images.decoding.decode import read_radiograph
from xray.mura.files import find_images
from xray.predictor import Predictor, Prepared, StudyPrediction


class OodMetrics(msgspec.Struct, frozen=True):
    """Shares of images that the scope refuses. A `Struct`, because keys of metrics.json differ from their attributes.

    Attributes:
        refused: share of the dataset's radiographs that are refused.
        ood_images: number of other images that were read; the key in metrics.json is `strangers`. Unreadable images do
            not count, because the service refuses them anyway.
        ood_refused: share of the other images that are refused; the key in metrics.json is `strangers_refused`.
        auroc: AUROC of the scope's distance for other images against the dataset's radiographs.
    """

    refused: float
    ood_images: int = msgspec.field(name="strangers")
    ood_refused: float = msgspec.field(name="strangers_refused")
    auroc: float


def measure_ood(predictions: Sequence[StudyPrediction], predictor: Predictor, folder: Path) -> OodMetrics | None:
    """Measure how well the scope tells all images below `folder` from the split's; None if no image can be read."""
    own = np.array([predictor.scope(each).distance for study in predictions for each in study.radiographs])
    files = find_images(folder).images.values()
    prepared = (each for each in prepare_ahead(partial(_prepare, predictor), files) if each is not None)
    passes = tqdm(infer_in_batches(predictor.engine, prepared), desc="out of scope", unit="img")
    other = np.array([predictor.scope(predictor.read(output, 0, each)).distance for each, output in passes])
    if not len(other):
        return None
    targets = np.repeat([0, 1], [len(own), len(other)])
    area = auroc(targets, np.concatenate([own, other]))
    return OodMetrics(
        refused=float((own > 1).mean()), ood_images=len(other), ood_refused=float((other > 1).mean()), auroc=area
    )


def _prepare(predictor: Predictor, file: Path) -> Prepared | None:
    """Return the network's input for an image; None if it cannot be read."""
    try:
        return predictor.prepare(read_radiograph(file))
    except (InputError, OSError):
        return None
