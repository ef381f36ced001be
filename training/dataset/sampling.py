"""Studies in, which of them each step of an epoch sees, and what each counts, out.

Nothing here keeps random state: what step t of epoch e sees is a function of (seed, e, t), so a run that was killed
goes on exactly where it stood.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.options import TrainOptions
from xray.mura.studies import Study


@dataclass(frozen=True)
class Draw:
    """One study drawn for one place of one epoch; the place seeds its augmentation."""

    epoch: int
    place: int
    study: int


def plan_epoch(studies: Sequence[Study], options: TrainOptions, epoch: int, processes: int) -> list[list[Draw]]:
    """The global batches of an epoch, each of `batch_studies` studies per process.

    Balanced sampling draws as many studies as there are, with replacement, normal and abnormal equally often. The
    last batch is left out when it is not full, unless it is the only one.
    """
    random = np.random.default_rng([options.seed, epoch])
    if options.sampling == "balanced":
        chances = drawing_chances(studies, options)
        order = random.choice(len(studies), len(studies), p=chances)
    else:
        order = random.permutation(len(studies))
    draws = [Draw(epoch, place, int(study)) for place, study in enumerate(order)]
    full = options.batch_studies * processes
    return [draws[start : start + full] for start in range(0, max(1, len(draws) - full + 1), full)]


def drawing_chances(studies: Sequence[Study], options: TrainOptions) -> np.ndarray:
    """The chance of each study at each place of an epoch; sums to 1."""
    targets = np.array([study.target for study in studies])
    if options.sampling == "natural" or targets.min() == targets.max():
        return np.full(len(studies), 1 / len(studies))
    counts = np.bincount(targets, minlength=2)
    return np.asarray(0.5 / counts[targets])


def loss_weights(studies: Sequence[Study], options: TrainOptions) -> list[float]:
    """What each study counts in the loss.

    `body-part`: the share of the other class within the study's body part (Rajpurkar et al. 2017), counted as the
    sampling draws the studies, so that balanced sampling and these weights do not correct twice for one imbalance.
    Scaled so that the expected weight is 1.
    """
    if options.loss_weights == "none":
        return [1.0] * len(studies)
    chances = drawing_chances(studies, options)
    share: dict[tuple[str, int], float] = defaultdict(float)
    for study, chance in zip(studies, chances, strict=True):
        share[study.body_part, study.target] += chance
    weights = np.array([_other_share(share, study) for study in studies])
    return list(weights / float(chances @ weights))


def _other_share(share: dict[tuple[str, int], float], study: Study) -> float:
    """Share of the other class in the study's body part; one half where there is no other class."""
    own = share[study.body_part, study.target]
    other = share.get((study.body_part, 1 - study.target), own)
    return other / (own + other)
