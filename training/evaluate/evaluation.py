"""The result of an evaluation, and its tables, sentences and page."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from training.evaluate.html_page import Page
from training.evaluate.metrics import CalibrationFigures, Interval, Sample
from training.evaluate.ood import OodMetrics
from training.evaluate.pointing_game import NEAR, Pointing
from training.evaluate.retrieval_metrics import ALIKE, Retrieval
from training.evaluate.worst_cases import Mistake
from xray.mura.studies import Study, describe_counts
from xray.network.checkpoint import CheckpointManifest
from xray.predictor import StudyPrediction


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


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation: everything that `evaluate` reports.

    Attributes:
        left_out: number of files, folders and rows of the split that were skipped, by suffix or reason.
        overlap: number of its patients that are also in another split, by that split's name.
        pointing: results of the pointing game; None if the dataset has no boxes.
        retrieval: quality of the neighbors; None if no gallery was given.
        scoping: quality of the scope; None if no images out of scope were given.
    """

    checkpoint: CheckpointManifest
    dataset: str
    split: str
    left_out: dict[str, int]
    overlap: dict[str, int]
    rows: tuple[Row, ...]
    calibration: CalibrationFigures
    pointing: Pointing | None
    retrieval: Retrieval | None
    scoping: OodMetrics | None


def write_tables(out: Path, studies: Sequence[Study], predictions: Sequence[StudyPrediction]) -> None:
    """Write an evaluation's tables, studies.csv and radiographs.csv, to the folder of its result.

    They hold all probabilities from which the metrics are computed.
    """
    pairs = list(zip(studies, predictions, strict=True))
    with (out / "studies.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["study", "body_part", "patient", "target", "probability"])
        table.writerows([s.key, s.body_part, s.patient, s.target, p.probability] for s, p in pairs)
    with (out / "radiographs.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "study", "target", "logit", "probability"])
        for study, prediction in pairs:
            for record, each in zip(study.records, prediction.radiographs, strict=True):
                table.writerow([record.path, study.key, study.target, each.logit, each.probability])


def evaluation_title(evaluation: Evaluation) -> str:
    """Return an evaluation's title, with the checkpoint and the split."""
    return f"Checkpoint {evaluation.checkpoint.id} on {evaluation.dataset} {evaluation.split}"


def as_table(evaluation: Evaluation) -> list[list[str]]:
    """Return an evaluation's table of the groups: a header, then one line for each group."""
    names = [name for name in evaluation.rows[0].figures if name != "accuracy"]
    lines = [["group", "studies", "abnormal", *names, "baseline"]]
    for row in evaluation.rows:
        figures = [str(row.figures[name]) for name in names]
        lines.append([row.group, str(row.studies), str(row.abnormal), *figures, f"{row.baseline_auroc:.3f}"])
    return lines


def remarks(evaluation: Evaluation) -> list[str]:
    """Return an evaluation's remarks: one sentence for each measurement other than those of the groups."""
    calibration = evaluation.calibration
    lines = [
        f"calibration: expected error {calibration.error:.3f} (of true probabilities {calibration.error_if_true}), "
        f"Brier score {calibration.brier:.3f}"
    ]
    if (game := evaluation.pointing) is not None:
        lines.append(
            f"map on {game.radiographs} radiographs with boxes: peak within {NEAR} px of a box {game.near} (by chance "
            f"{game.near_by_chance:.3f}, the centre {game.near_at_centre:.3f}), inside one {game.hit}, evidence inside "
            f"{game.energy}, first region's IoU {game.overlap}"
        )
    if (retrieval := evaluation.retrieval) is not None:
        lines.append(
            f"neighbors' labels as a second opinion: AUROC {retrieval.second_opinion:.3f}, "
            f"agreement {retrieval.agreement:.3f}"
        )
    if (ood := evaluation.scoping) is not None:
        lines.append(
            f"scope: {ood.refused:.3f} of the radiographs refused, {ood.ood_refused:.3f} of "
            f"{ood.ood_images} images out of scope; AUROC of the distance {ood.auroc:.3f}"
        )
    if evaluation.left_out:
        lines.append(f"left out of {evaluation.split}: {describe_counts(evaluation.left_out)}")
    lines += [f"{count} patients are in {other} too" for other, count in evaluation.overlap.items()]
    return lines


def neighbors_table(evaluation: Evaluation) -> list[list[str]]:
    """Return an evaluation's table of neighbors: a header, then each query group's precision by chance and by depth.

    The table is empty without a gallery.
    """
    if evaluation.retrieval is None:
        return []
    lines = [["queries", "precision", *ALIKE]]
    for name, group in evaluation.retrieval.groups.items():
        queries = f"{group.queries} {name}"
        lines.append([queries, "by chance", *(f"{group.chance[what]:.3f}" for what in ALIKE)])
        lines.extend([queries, f"P@{depth}", *(str(at[what]) for what in ALIKE)] for depth, at in group.at.items())
    return lines


def page_of(evaluation: Evaluation, sample: Sample, mistakes: Sequence[Mistake]) -> Page:
    """Return an evaluation's result, in tables and sentences, with a sample and mistakes, as what its page shows."""
    tables = as_table(evaluation), neighbors_table(evaluation)
    return Page(evaluation_title(evaluation), *tables, remarks(evaluation), sample, mistakes)


def print_evaluation(evaluation: Evaluation) -> None:
    """Print an evaluation's tables and remarks."""
    print(f"{evaluation_title(evaluation)}; 95 % intervals over patients; baseline: AUROC of the body part alone")
    _print_table(as_table(evaluation))
    print("\n".join(remarks(evaluation)))
    _print_table(neighbors_table(evaluation))


def _print_table(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
