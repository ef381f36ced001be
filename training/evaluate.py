"""A checkpoint and a split in, figures with intervals, tables and a page out.

Probabilities come from the same `Predictor` as the service's, so they are the service's.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from tqdm import tqdm

from training.annotations import Annotation, read_annotations
from training.data import require_readable
from training.metrics import (
    RESAMPLES,
    Interval,
    Sample,
    auroc,
    brier_score,
    calibration_error,
    figures_with_intervals,
)
from training.mistakes import worst_mistakes
from training.neighbors import Retrieval, retrieval
from training.pointing import NEAR, Pointing, pointing
from training.predictions import predict_all, sample_of
from training.report import Page, write_page
from xray.checkpoint import CheckpointManifest, load_checkpoint
from xray.engine import DeviceChoice, PrecisionChoice, load_engine
from xray.gallery import load_gallery
from xray.mura import Study, read_mura, records_of
from xray.predictor import Predictor, StudyPrediction

OVERALL, HARDWARE_FREE = "all", "hardware-free"


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure a checkpoint on the studies of DATA/SPLIT."""

    checkpoint: Path
    """Checkpoint folder."""
    data: Path
    """Dataset folder in MURA layout."""
    split: str = "valid"
    out: Path = Path("artifacts/evaluation")
    """Folder for index.html, metrics.json, studies.csv and radiographs.csv."""
    gallery: Path | None = None
    """Gallery folder of that checkpoint, to see how alike its neighbors are."""
    device: DeviceChoice = "auto"
    precision: PrecisionChoice = "auto"
    """The network's arithmetic on a CPU; `auto` is what the service takes on this machine."""
    resamples: int = RESAMPLES
    """Bootstrap resamples behind each interval."""


@dataclass(frozen=True)
class Row:
    """The figures of one group of studies.

    Attributes:
        floor: AUROC of a predictor that knows the body part and nothing else.
    """

    group: str
    studies: int
    abnormal: int
    figures: dict[str, Interval]
    floor: float


@dataclass(frozen=True)
class Evaluation:
    """Everything that `evaluate` reports.

    Attributes:
        calibration_error, brier: of the studies' probabilities.
        pointing: where the dataset has boxes.
        retrieval: where a gallery was given.
    """

    checkpoint: CheckpointManifest
    dataset: str
    split: str
    rows: tuple[Row, ...]
    calibration_error: float
    brier: float
    pointing: Pointing | None
    retrieval: Retrieval | None


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Predict every study, measure, print the table and write OUT.

    Raises:
        ArtifactError: the checkpoint is damaged.
        DatasetError: the split is empty, or images cannot be read; they are counted and named.
    """
    checkpoint = load_checkpoint(options.checkpoint)
    studies = read_mura(options.data, options.split)
    require_readable(records_of(studies))
    predictor = Predictor(checkpoint.manifest, load_engine(checkpoint, options.device, options.precision))
    predictions = list(tqdm(predict_all(predictor, studies), total=len(studies), desc="predicting", unit="study"))
    sample = sample_of(studies, predictions)
    annotations = read_annotations(options.data)
    groups = groups_of(studies, studies_with_hardware(annotations))
    threshold, floors = checkpoint.manifest.thresholds["default"], floors_of(studies)
    rows = tuple(
        row_of(name, sample.rows(chosen), floors[chosen], threshold, options.resamples)
        for name, chosen in tqdm(groups.items(), desc="resampling", unit="group")
    )
    gallery = load_gallery(options.gallery, checkpoint.manifest.id) if options.gallery else None
    evaluation = Evaluation(
        checkpoint.manifest,
        options.data.resolve().name,
        options.split,
        rows,
        calibration_error(sample.targets, sample.probabilities),
        brier_score(sample.targets, sample.probabilities),
        pointing(studies, predictions, annotations, options.resamples),
        retrieval(studies, predictions, gallery, options.resamples) if gallery else None,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    write_tables(options.out, studies, predictions)
    (options.out / "metrics.json").write_bytes(msgspec.json.format(msgspec.json.encode(evaluation)))
    page = Page(
        evaluation_title(evaluation),
        as_table(evaluation),
        as_sentences(evaluation),
        sample,
        worst_mistakes(studies, predictions, annotations),
    )
    write_page(options.out / "index.html", page)
    print_table(evaluation)
    return evaluation


def studies_with_hardware(annotations: Mapping[str, Annotation]) -> set[str] | None:
    """Dataset folders of the studies in which any image shows metal; None where nobody noted it."""
    noted = {path: annotation.hardware for path, annotation in annotations.items() if annotation.hardware is not None}
    return {path.rsplit("/", 1)[0] for path, hardware in noted.items() if hardware} if noted else None


def groups_of(studies: Sequence[Study], with_hardware: set[str] | None) -> dict[str, np.ndarray]:
    """Which studies belong to each row of the table."""
    parts = [study.body_part for study in studies]
    groups = {OVERALL: np.ones(len(studies), bool)}
    groups |= {part: np.array(parts) == part for part in sorted(set(parts))}
    if with_hardware is not None:
        free = [study.records[0].path.rsplit("/", 1)[0] not in with_hardware for study in studies]
        groups[HARDWARE_FREE] = np.array(free)
    return groups


def floors_of(studies: Sequence[Study]) -> np.ndarray:
    """For each study the share of abnormal ones among those of its body part."""
    targets: dict[str, list[int]] = {}
    for study in studies:
        targets.setdefault(study.body_part, []).append(study.target)
    return np.array([np.mean(targets[study.body_part]) for study in studies])


def row_of(group: str, sample: Sample, floors: np.ndarray, threshold: float, resamples: int) -> Row:
    figures = figures_with_intervals(sample, threshold, resamples)
    return Row(group, len(sample.targets), int(sample.targets.sum()), figures, auroc(sample.targets, floors))


def write_tables(out: Path, studies: Sequence[Study], predictions: Sequence[StudyPrediction]) -> None:
    """studies.csv and radiographs.csv: every probability that went into the figures."""
    pairs = list(zip(studies, predictions, strict=True))
    with (out / "studies.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["study", "body_part", "patient", "target", "probability"])
        table.writerows([s.key, s.body_part, s.patient, s.target, p.probability] for s, p in pairs)
    with (out / "radiographs.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "study", "target", "logit", "probability"])
        for study, prediction in pairs:
            for record, each in zip(study.records, prediction.radiographs, strict=True):
                table.writerow([record.path, study.key, study.target, each.logit, each.probability])


def evaluation_title(evaluation: Evaluation) -> str:
    return f"Checkpoint {evaluation.checkpoint.id} on {evaluation.dataset} {evaluation.split}"


def as_table(evaluation: Evaluation) -> list[list[str]]:
    """Header and one line for each group."""
    names = [name for name in evaluation.rows[0].figures if name != "accuracy"]
    lines = [["group", "studies", "abnormal", *names, "floor"]]
    for row in evaluation.rows:
        figures = [str(row.figures[name]) for name in names]
        lines.append([row.group, str(row.studies), str(row.abnormal), *figures, f"{row.floor:.3f}"])
    return lines


def as_sentences(evaluation: Evaluation) -> list[str]:
    """What was measured beside the groups, one line each."""
    lines = [f"calibration: expected error {evaluation.calibration_error:.3f}, Brier score {evaluation.brier:.3f}"]
    if (game := evaluation.pointing) is not None:
        lines.append(
            f"map on {game.radiographs} radiographs with boxes: peak within {NEAR} px of a box {game.near} (by chance "
            f"{game.near_by_chance:.3f}, the centre {game.near_at_centre:.3f}), inside one {game.hit}, evidence inside "
            f"{game.energy}"
        )
    if (found := evaluation.retrieval) is not None:
        for name, group in found.groups.items():
            for depth, precision in group.at.items():
                figures = ", ".join(f"{what} {precision[what]} (chance {group.chance[what]:.3f})" for what in precision)
                lines.append(f"neighbors of {group.queries} {name} queries, P@{depth}: {figures}")
        lines.append(
            f"neighbors' labels as a second opinion: AUROC {found.second_opinion:.3f}, agreement {found.agreement:.3f}"
        )
    return lines


def print_table(evaluation: Evaluation) -> None:
    lines = as_table(evaluation)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    print(f"{evaluation_title(evaluation)}; 95 % intervals over patients; floor: AUROC of the body part alone")
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print("\n".join(as_sentences(evaluation)))
