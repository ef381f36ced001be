"""Chooses the studies of each training step, and their weights in the loss.

No random state is kept: the studies of step t of epoch e are a function of (seed, e, t), so that a killed run continues
exactly where it stopped.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.options import TrainOptions
from xray.mura.studies import Study, dataset_name


@dataclass(frozen=True)
class SampledStudy:
    """A study that was sampled for one place in an epoch.

    Attributes:
        place: place in the epoch, from 0; epoch and place seed the augmentation.
        study: index of the study.
    """

    epoch: int
    place: int
    study: int


def plan_epoch(studies: Sequence[Study], options: TrainOptions, epoch: int, processes: int) -> list[list[SampledStudy]]:
    """Sample the studies of an epoch's global batches, each of `batch_studies` studies per process.

    Balanced sampling draws as many studies as there are, with replacement, normal and abnormal equally often. The
    last batch is left out if it is not full, unless it is the only one.
    """
    random = np.random.default_rng([options.seed, epoch])
    if options.sampling == "balanced" or options.normals:
        probabilities = sampling_probabilities(studies, options)
        own = int((~_are_normals(studies, options)).sum())
        order = random.choice(len(studies), round(own / (1 - options.normals_share)), p=probabilities)
    else:
        order = random.permutation(len(studies))
    samples = [SampledStudy(epoch, place, int(study)) for place, study in enumerate(order)]
    full = options.batch_studies * processes
    return [samples[start : start + full] for start in range(0, max(1, len(samples) - full + 1), full)]


def sampling_probabilities(studies: Sequence[Study], options: TrainOptions) -> np.ndarray:
    """Return each study's probability of being sampled at each place in an epoch; they sum to 1."""
    targets = np.array([study.target for study in studies])
    if _are_normals(studies, options).any():
        return _with_normals(studies, targets, options)
    if options.sampling == "natural" or targets.min() == targets.max():
        return np.full(len(studies), 1 / len(studies))
    counts = np.bincount(targets, minlength=2)
    return np.asarray(0.5 / counts[targets])


def _with_normals(studies: Sequence[Study], targets: np.ndarray, options: TrainOptions) -> np.ndarray:
    """Return the sampling probabilities if there are studies of other datasets, which have their own share."""
    other = _are_normals(studies, options)
    own = np.where(other, 0.0, 1.0)
    if options.sampling == "balanced":
        counts = np.bincount(targets[~other], minlength=2)
        own = np.where(other, 0.0, 1 / counts[targets])
    return np.asarray((1 - options.normals_share) * own / own.sum() + options.normals_share * other / other.sum())


def _are_normals(studies: Sequence[Study], options: TrainOptions) -> np.ndarray:
    """Return which studies are of the datasets whose radiographs are all taken as normal."""
    names = {dataset_name(folder) for folder in options.normals}
    return np.array([study.records[0].path.split("/", 1)[0] in names for study in studies])


def loss_weights(studies: Sequence[Study], options: TrainOptions) -> list[float]:
    """Return the loss weights that go with the sampling, one for each study; no imbalance is corrected twice.

    `body-part`: the share of the other class within the study's body part (Rajpurkar et al. 2017), as sampled: what
    balanced sampling corrects already is left alone. Scaled to an expected weight of 1.
    """
    if options.loss_weights == "none":
        return [1.0] * len(studies)
    probabilities = sampling_probabilities(studies, options)
    share: dict[tuple[str, int], float] = defaultdict(float)
    for study, probability in zip(studies, probabilities, strict=True):
        share[study.body_part, study.target] += probability
    weights = np.array([_other_share(share, study) for study in studies])
    return list(weights / float(probabilities @ weights))


def _other_share(share: dict[tuple[str, int], float], study: Study) -> float:
    """Return the share of the other class in the study's body part; one half if there is no other class."""
    own = share[study.body_part, study.target]
    other = share.get((study.body_part, 1 - study.target), own)
    return other / (own + other)
