"""Measures whether one checkpoint is better than another, with an interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.dataset.annotations import read_annotations
from training.dataset.radiographs import read_radiographs
from training.evaluate.metrics import RESAMPLES, Interval, Sample, auroc, auroc_difference
from training.evaluate.pointing_game import Pointing, measure_pointing
from training.evaluate.predictions import predict_all, sample_of
from xray.engines.base import DeviceChoice
from xray.engines.registry import load_engine
from xray.images.radiograph import Radiograph
from xray.mura.overlap import require_disjoint
from xray.mura.studies import Study, read_mura, records_of
from xray.network.checkpoint import load_checkpoint
from xray.predictor import Predictor


@dataclass(frozen=True)
class CompareOptions:
    """Compare two checkpoints on the studies of DATA/SPLIT."""

    first: Path
    """Checkpoint folder."""
    second: Path
    """Checkpoint folder of the network that may be better."""
    data: Path
    """Dataset folder in MURA layout."""
    split: str = "valid"
    device: DeviceChoice = "auto"
    resamples: int = RESAMPLES
    allow_overlap: bool = False
    """Allow patients of the split in another split of the dataset."""


@dataclass(frozen=True)
class Gain:
    """The result of comparing two checkpoints: the difference of the second from the first.

    Attributes:
        auroc: AUROC over studies, of the first and of the second.
        gain: AUROC of the second minus the first, with the interval of a bootstrap over the same patients for both.
        pointing: pointing game of the first and of the second; None if the dataset has no boxes.
    """

    auroc: tuple[float, float]
    gain: Interval
    pointing: tuple[Pointing | None, Pointing | None]


def compare(options: CompareOptions) -> Gain:
    """Compare two checkpoints: predict the split with both, and print the difference.

    Raises:
        ArtifactError: a checkpoint is damaged.
        DatasetError: the split is empty, images cannot be read, or patients are also in another split.
    """
    studies = read_mura(options.data, options.split)
    require_disjoint(options.data, options.split, studies, options.allow_overlap)
    radiographs = read_radiographs(records_of(studies))
    (first, first_game), (second, second_game) = (
        _measure(folder, studies, radiographs, options) for folder in (options.first, options.second)
    )
    areas = auroc(first.targets, first.probabilities), auroc(second.targets, second.probabilities)
    result = Gain(areas, auroc_difference(first, second, options.resamples), (first_game, second_game))
    print(f"AUROC {areas[0]:.3f} and {areas[1]:.3f}: {result.gain}")
    if first_game and second_game:
        print(f"peak near a box {first_game.near} and {second_game.near}")
    return result


def _measure(
    folder: Path, studies: Sequence[Study], radiographs: Sequence[Radiograph], options: CompareOptions
) -> tuple[Sample, Pointing | None]:
    checkpoint = load_checkpoint(folder)
    predictor = Predictor(checkpoint.manifest, load_engine(checkpoint, options.device))
    predictions = predict_all(predictor, studies, radiographs)
    game = measure_pointing(studies, predictions, read_annotations(options.data), options.resamples)
    return sample_of(studies, predictions), game
