"""Studies in, batches of bags out, in an order that depends only on the seed and the epoch.

Nothing here keeps random state: what step t of epoch e sees is a function of (seed, e, t), so a run that was killed
goes on exactly where it stood.

Legend: B studies of a batch, N their radiographs, S canvas side.
"""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from training.augment import augment
from training.options import TrainOptions
from xray.errors import DatasetError, InputError
from xray.image import read_radiograph
from xray.mura import SHOWN, MuraRecord, Study
from xray.preprocess import PreprocessSpec, preprocess


@dataclass(frozen=True)
class Draw:
    """One study drawn for one place of one epoch; the place seeds its augmentation."""

    epoch: int
    place: int
    study: int


@dataclass(frozen=True)
class Bags:
    """A batch of studies.

    Attributes:
        pixels_N1SS: uint8, the radiographs of all studies, study by study.
        views: number of radiographs of each of the B studies; sums to N.
        targets_B: float32, 0 or 1.
        weights_B: float32, what each study counts in the loss.
    """

    pixels_N1SS: Tensor
    views: tuple[int, ...]
    targets_B: Tensor
    weights_B: Tensor

    def to(self, device: torch.device) -> "Bags":
        return Bags(self.pixels_N1SS.to(device), self.views, self.targets_B.to(device), self.weights_B.to(device))


Bag = tuple[Tensor, float, float]


class StudyBags(Dataset[Bag]):
    """Looked up by `Draw`: the canvases (n, 1, S, S), the target and the weight of one study."""

    def __init__(self, studies: Sequence[Study], weights: Sequence[float], options: TrainOptions, training: bool):
        self.studies, self.weights, self.options, self.training = studies, weights, options, training

    def __getitem__(self, draw: Draw) -> Bag:
        study, spec = self.studies[draw.study], self.options.preprocess
        if not self.training:
            canvases = [_canvas(record, spec) for record in study.records]
        else:
            random = np.random.default_rng([self.options.seed, draw.epoch, draw.place])
            chosen = random.permutation(len(study.records))[: self.options.max_views]
            canvases = [_canvas(study.records[index], spec) for index in chosen]
            if self.options.augment:
                canvases = [augment(canvas, random) for canvas in canvases]
        return torch.from_numpy(np.stack(canvases)), float(study.target), self.weights[draw.study]


def collate(bags: Sequence[Bag]) -> Bags:
    """Several studies as one batch."""
    canvases, targets, weights = zip(*bags, strict=True)
    return Bags(
        torch.cat(canvases), tuple(len(views) for views in canvases), torch.tensor(targets), torch.tensor(weights)
    )


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


def require_readable(records: Sequence[MuraRecord]) -> None:
    """Decode every image once, before hours are spent.

    Raises:
        DatasetError: counts the unreadable images, names the first few and says what is wrong with each.
    """
    with ThreadPoolExecutor() as pool:
        faults = list(tqdm(pool.map(_fault, records), total=len(records), desc="checking images", unit="img"))
    unreadable = [fault for fault in faults if fault]
    if unreadable:
        raise DatasetError(
            f"{len(unreadable)} of {len(records)} images cannot be read:\n  " + "\n  ".join(unreadable[:SHOWN])
        )


def _fault(record: MuraRecord) -> str | None:
    try:
        read_radiograph(record.file)
    except (InputError, OSError) as error:
        return f"{record.path}: {error}"
    return None


def _canvas(record: MuraRecord, spec: PreprocessSpec) -> np.ndarray:
    return preprocess(read_radiograph(record.file), spec)[0]
