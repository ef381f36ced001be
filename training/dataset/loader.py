"""Loads batches of studies for training. The content of a batch depends only on the seed and its place in the epoch.

Legend: B studies of a batch, N their radiographs, n those of one, S canvas or window side, h, w cells of the map.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.dataset.annotations import Annotation, Box, boxes_of, covered_cells, draw_boxes
from training.dataset.appearance import vary_appearance
from training.dataset.augment import augment, cut_window
from training.dataset.counterfactual import counterfactual
from training.dataset.image_cache import Canvases
from training.dataset.sampling import SampledStudy
from training.options import TrainOptions
from xray.images.radiograph import PixelArray
from xray.mura.studies import MuraRecord, Study


@dataclass(frozen=True)
class Bag:
    """One study that is loaded for training: its radiographs, its target and its weight in the loss.

    Attributes:
        pixels_n1SS: uint8.
        inside_nhw: bool, the cells of the map that a box covers.
        target: 0 or 1.
        weight: weight of the study in the loss.
    """

    pixels_n1SS: Tensor
    inside_nhw: Tensor
    target: float
    weight: float


@dataclass(frozen=True)
class Bags:
    """A loaded batch of studies, for training or validation.

    Attributes:
        pixels_N1SS: uint8, the radiographs of all studies, study by study.
        inside_Nhw: bool, the cells of their maps that a box covers.
        views: number of radiographs of each of the B studies; sums to N.
        targets_B: float32, 0 or 1.
        weights_B: float32, weights of the studies in the loss.
    """

    pixels_N1SS: Tensor
    inside_Nhw: Tensor
    views: tuple[int, ...]
    targets_B: Tensor
    weights_B: Tensor

    def to(self, device: torch.device) -> "Bags":
        """Return the same loaded batch of studies on another device."""
        tensors = (self.pixels_N1SS, self.inside_Nhw, self.targets_B, self.weights_B)
        pixels, inside, targets, weights = (tensor.to(device) for tensor in tensors)
        return Bags(pixels, inside, self.views, targets, weights)


@dataclass(frozen=True)
class Views:
    """What the loader reads for its batches: the canvases of radiographs, with the boxes of their findings."""

    canvases: Canvases
    annotations: Mapping[str, Annotation]

    def boxes(self, record: MuraRecord) -> Sequence[Box]:
        """Return the boxes of a radiograph to load; empty if none are known."""
        return boxes_of(record.path, self.annotations)

    def view(self, record: MuraRecord) -> tuple[PixelArray, PixelArray]:
        """Load a radiograph's canvas and the mask of its boxes, (1, S, S) uint8 each."""
        canvas, placement = self.canvases[record.path]
        return canvas, draw_boxes(self.boxes(record), placement)


class StudyBags(Dataset[Bag]):
    """The dataset for torch's DataLoader, indexed by `SampledStudy`.

    Args:
        weights: weight of each study in the loss.
        training: whether to sample views, augment and cut windows.
    """

    def __init__(
        self, studies: Sequence[Study], weights: Sequence[float], views: Views, options: TrainOptions, training: bool
    ) -> None:
        self.studies = studies
        self.weights = weights
        self.views = views
        self.options = options
        self.training = training
        records = [(record, study.target) for study in studies for record in study.records]
        self._with_boxes = [record for record, _ in records if views.boxes(record)]
        self._normal = [record for record, target in records if not target]

    def __getitem__(self, sampled: SampledStudy) -> Bag:
        study, weight = self.studies[sampled.study], self.weights[sampled.study]
        if not self.training:
            return self._bag([self.views.view(record) for record in study.records], study.target, weight)
        random = np.random.default_rng([self.options.seed, sampled.epoch, sampled.place])
        records = [study.records[index] for index in random.permutation(len(study.records))]
        if self.options.window:
            return self._window(records, weight, random)
        views = [self.views.view(record) for record in records[: self.options.max_views]]
        target = study.target
        if self._may_change(study, records[: self.options.max_views]) and random.random() < self.options.counterfactual:
            views = [self._counterfactual(view, random) for view in views[:1]]
            target = int(views[0][1].any())
        return self._bag([self._augmented(*view, random) for view in views], target, weight)

    def _may_change(self, study: Study, records: Sequence[MuraRecord]) -> bool:
        """Return whether the label of the first radiograph is known for sure, with the place of its findings."""
        return bool(self._with_boxes) and (not study.target or bool(self.views.boxes(records[0])))

    def _counterfactual(
        self, view: tuple[PixelArray, PixelArray], random: np.random.Generator
    ) -> tuple[PixelArray, PixelArray]:
        finding, normal = (
            self.views.view(records[int(random.integers(len(records)))]) for records in (self._with_boxes, self._normal)
        )
        return counterfactual(view, finding, normal[0], random)

    def _window(self, records: Sequence[MuraRecord], weight: float, random: np.random.Generator) -> Bag:
        """Cut a window of one radiograph, with a finding if there is one; the target is 1 if it shows the finding."""
        record = max(records, key=lambda record: bool(self.views.boxes(record)))
        pixels, region = cut_window(*self._augmented(*self.views.view(record), random), self.options.window, random)
        return self._bag([(pixels, region)], int(region.any()), weight)

    def _augmented(
        self, canvas: PixelArray, region: PixelArray, random: np.random.Generator
    ) -> tuple[PixelArray, PixelArray]:
        if self.options.augment:
            canvas, region = augment(canvas, region, random)
        return (vary_appearance(canvas, random) if self.options.vary_appearance else canvas), region

    def _bag(self, views: Sequence[tuple[PixelArray, PixelArray]], target: int, weight: float) -> Bag:
        pixels, regions = zip(*views, strict=True)
        cells = pixels[0].shape[1] // self.options.map_stride
        inside = np.stack([covered_cells(region, cells) for region in regions])
        return Bag(torch.from_numpy(np.stack(pixels)), torch.from_numpy(inside), float(target), weight)


def collate(bags: Sequence[Bag]) -> Bags:
    """Join several loaded studies into one batch."""
    return Bags(
        torch.cat([bag.pixels_n1SS for bag in bags]),
        torch.cat([bag.inside_nhw for bag in bags]),
        tuple(len(bag.pixels_n1SS) for bag in bags),
        torch.tensor([bag.target for bag in bags]),
        torch.tensor([bag.weight for bag in bags]),
    )


class BatchLoader:
    """Loads batches of studies in worker processes.

    The processes are kept between epochs, because starting them takes as long as an epoch on a GPU.
    """

    def __init__(self, bags: StudyBags, options: TrainOptions) -> None:
        self._plan: list[list[SampledStudy]] = []
        self._loader: DataLoader[Bag] = DataLoader(
            bags,
            batch_sampler=self._plan,
            collate_fn=collate,
            num_workers=options.workers,
            persistent_workers=options.workers > 0,
        )

    def batches(self, plan: list[list[SampledStudy]]) -> Iterator[Bags]:
        """Load the planned batches of studies in order. Finish one plan before you start the next."""
        self._plan[:] = plan
        return iter(self._loader)
