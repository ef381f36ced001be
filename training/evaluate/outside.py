"""Measures what a checkpoint answers to studies of other sources than the dataset that it is evaluated on.

Such a set shows what passes between hospitals. It is often small, so each of its studies is listed by name, too.
"""

import csv
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from training.dataset.radiographs import read_radiographs
from training.evaluate.metrics import Interval, figures_with_intervals
from training.evaluate.predictions import predict_ensemble, sample_of
from xray.gallery.gallery import Gallery, NeighborQuery
from xray.mura.body_regions import is_same_region
from xray.mura.studies import Split, Study, read_split, records_of
from xray.network.decision import Decision
from xray.predictor import Predictor, StudyPrediction

SPLIT = "valid"
"""Split of an outside set that is measured."""
NEAREST = 5
"""Number of neighbors whose body region is compared with the query's; the service's default."""
FILE = "outside.csv"
"""Name of the table of all studies of the outside sets."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutsideStudy:
    """What the network answers to one study of an outside set.

    Attributes:
        label: label in the dataset.
        probability: of abnormality, calibrated, from 0 to 1.
        in_scope: whether all of its radiographs are let in.
        familiarity: likeness to the training data, below 1 for unfamiliar studies; None if the checkpoint has no limit.
    """

    name: str
    label: str
    probability: float
    decision: Decision
    in_scope: bool
    familiarity: float | None


@dataclass(frozen=True)
class OutsideSet:
    """The metrics of one outside set. Shares are of its studies, and NaN if they are not defined.

    Attributes:
        auroc: AUROC over studies; NaN if they are of one class.
        false_alarms: share of the normal studies whose label is `abnormal` at the default threshold.
        let_in: share with all radiographs in scope.
        familiar: share that is familiar; NaN if the checkpoint has no limit.
        uncertain: share whose decision is `uncertain`.
        decided_unfamiliar: number of unfamiliar studies whose decision is not `uncertain`; anything but 0 is a fault.
        same_region: share of the `NEAREST` neighbors of its radiographs that show their body region; NaN without a
            gallery.
        same_region_by_chance: the same share of neighbors drawn at random.
        cases: each study, in the order of their names.
    """

    name: str
    studies: int
    abnormal: int
    auroc: Interval
    false_alarms: float
    let_in: float
    familiar: float
    uncertain: float
    decided_unfamiliar: int
    same_region: float
    same_region_by_chance: float
    cases: tuple[OutsideStudy, ...]


def read_outside(folders: Sequence[Path]) -> list[Split]:
    """Read the studies of the outside sets, and log the entries that are left out.

    Raises:
        DatasetError: a folder is not in MURA layout or has no split `valid`.
    """
    splits = [read_split(folder, SPLIT) for folder in folders]
    for split in splits:
        if split.remark:
            log.warning(split.remark)
    return splits


def measure_outside(
    split: Split, predictors: Sequence[Predictor], gallery: Gallery | None, resamples: int
) -> OutsideSet:
    """Predict the studies of an outside set with an ensemble, and measure its answers.

    Raises:
        DatasetError: images cannot be read.
    """
    studies = split.studies
    predictions = predict_ensemble(predictors, studies, read_radiographs(records_of(studies)))
    cases = [_case(*pair, predictors[0]) for pair in zip(studies, predictions, strict=True)]
    sample = sample_of(studies, predictions)
    figures = figures_with_intervals(sample, predictions[0].threshold, resamples)
    familiar = [each.familiar for each in predictions if each.familiar is not None]
    same_region, by_chance = _region_shares(studies, predictions, gallery) if gallery else (float("nan"),) * 2
    return OutsideSet(
        name=split.name,
        studies=len(studies),
        abnormal=int(sample.targets.sum()),
        auroc=figures["auroc"],
        false_alarms=1 - figures["specificity"].value,
        let_in=fmean(case.in_scope for case in cases),
        familiar=fmean(familiar) if familiar else float("nan"),
        uncertain=fmean(case.decision == "uncertain" for case in cases),
        decided_unfamiliar=sum(each.familiar is False and each.decision != "uncertain" for each in predictions),
        same_region=same_region,
        same_region_by_chance=by_chance,
        cases=tuple(cases),
    )


def write_outside(out: Path, sets: Sequence[OutsideSet]) -> None:
    """Write outside.csv: what is answered to each study of all outside sets. Without any, it has only its header."""
    with (out / FILE).open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["set", "study", "label", "probability", "decision", "in_scope", "familiarity"])
        for each in sets:
            table.writerows(
                [each.name, c.name, c.label, c.probability, c.decision, c.in_scope, c.familiarity] for c in each.cases
            )


def outside_table(sets: Sequence[OutsideSet]) -> list[list[str]]:
    """Return the table of the outside sets: a header, then one line for each set."""
    header = ["set", "studies", "abnormal", "AUROC", "false alarms", "let in", "familiar", "uncertain"]
    lines = [[*header, "unfamiliar, decided", "same region", "by chance"]]
    for each in sets:
        counts = [str(each.studies), str(each.abnormal), str(each.auroc)]
        shares = [f"{share:.3f}" for share in (each.false_alarms, each.let_in, each.familiar, each.uncertain)]
        regions = [f"{share:.3f}" for share in (each.same_region, each.same_region_by_chance)]
        lines.append([each.name, *counts, *shares, str(each.decided_unfamiliar), *regions])
    return lines


def cases_table(outside: OutsideSet) -> list[list[str]]:
    """Return the table of the studies of one outside set: a header, then one line for each."""
    lines = [["study", "label", "probability", "decision", "in scope", "familiarity"]]
    for case in outside.cases:
        familiarity = "nan" if case.familiarity is None else f"{case.familiarity:.2f}"
        scope = "yes" if case.in_scope else "no"
        lines.append([case.name, case.label, f"{case.probability:.3f}", case.decision, scope, familiarity])
    return lines


def _case(study: Study, prediction: StudyPrediction, predictor: Predictor) -> OutsideStudy:
    return OutsideStudy(
        name=study.key,
        label=study.records[0].label,
        probability=prediction.probability,
        decision=prediction.decision,
        in_scope=all(predictor.scope(each).in_scope for each in prediction.radiographs),
        familiarity=prediction.familiarity,
    )


def _region_shares(
    studies: Sequence[Study], predictions: Sequence[StudyPrediction], gallery: Gallery
) -> tuple[float, float]:
    """Return the share of neighbors that show their query's body region, and the same share of all entries."""
    embeddings = [each.embedding_D for prediction in predictions for each in prediction.radiographs]
    counts = Counter(entry.body_part for entry in gallery.entries)
    nearest, every = [], []
    for record, embedding_D in zip(records_of(studies), embeddings, strict=True):
        found = gallery.search(embedding_D, NeighborQuery(k=NEAREST))
        nearest.append(fmean(is_same_region(record.body_part, neighbor.entry.body_part) for neighbor in found))
        same = sum(count for part, count in counts.items() if is_same_region(record.body_part, part))
        every.append(same / len(gallery.entries))
    return fmean(nearest), fmean(every)
