"""Measures a checkpoint on groups of studies: on all, on each body part, and on those without hardware."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from tqdm import tqdm

from training.dataset.annotations import Annotation
from training.evaluate.floors import body_part_shares
from training.evaluate.metrics import Interval, Sample, auroc, figures_with_intervals
from training.evaluate.predictions import sample_of
from xray.mura.studies import Study
from xray.predictor import StudyPrediction

OVERALL = "all"
"""Name of the group of all studies."""
HARDWARE_FREE = "hardware-free"
"""Name of the group of studies without visible metal, because a network could use metal as a shortcut."""


class Row(msgspec.Struct, frozen=True):
    """One group's row in an evaluation. A `Struct`, because a key of metrics.json differs from its attribute.

    Attributes:
        figures: intervals by name, one for each of `training.evaluate.metrics.FIGURES`.
        baseline_auroc: AUROC of a predictor that knows only the body part; the key in metrics.json is `floor`.
    """

    group: str
    studies: int
    abnormal: int
    figures: dict[str, Interval]
    baseline_auroc: float = msgspec.field(name="floor")


def studies_with_hardware(annotations: Mapping[str, Annotation]) -> set[str] | None:
    """Return the folders of studies with metal, to evaluate the others apart; None if no annotation mentions metal."""
    noted = {path: annotation.hardware for path, annotation in annotations.items() if annotation.hardware is not None}
    return {path.rsplit("/", 1)[0] for path, hardware in noted.items() if hardware} if noted else None


def group_studies(studies: Sequence[Study], with_hardware: set[str] | None) -> dict[str, np.ndarray]:
    """Return a mask of the studies of each group to evaluate, by the group's name."""
    parts = [study.body_part for study in studies]
    groups = {OVERALL: np.ones(len(studies), bool)}
    groups |= {part: np.array(parts) == part for part in sorted(set(parts))}
    if with_hardware is not None:
        free = [study.records[0].path.rsplit("/", 1)[0] not in with_hardware for study in studies]
        groups[HARDWARE_FREE] = np.array(free)
    return groups


def measure_groups(
    studies: Sequence[Study],
    predictions: Sequence[StudyPrediction],
    annotations: Mapping[str, Annotation],
    resamples: int,
) -> tuple[Row, ...]:
    """Evaluate the checkpoint on each group of studies; the first group is all studies."""
    sample = sample_of(studies, predictions)
    threshold = predictions[0].threshold
    baselines = body_part_shares(studies, studies)
    groups = group_studies(studies, studies_with_hardware(annotations))
    return tuple(
        measure_group(name, sample.rows(chosen), baselines[chosen], threshold, resamples)
        for name, chosen in tqdm(groups.items(), desc="resampling", unit="group")
    )


def measure_group(group: str, sample: Sample, baselines: np.ndarray, threshold: float, resamples: int) -> Row:
    """Evaluate the checkpoint on one group of studies: its metrics, and the AUROC of the `baselines`."""
    figures = figures_with_intervals(sample, threshold, resamples)
    return Row(group, len(sample.targets), int(sample.targets.sum()), figures, auroc(sample.targets, baselines))
