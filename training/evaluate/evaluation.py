"""The result of an evaluation, and its tables, sentences and page."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.evaluate.floors import FIT_SPLIT, Floors, floors_table
from training.evaluate.groups import Row
from training.evaluate.metrics import CalibrationFigures, Sample
from training.evaluate.ood import OodMetrics
from training.evaluate.outside import FILE, NEAREST, OutsideSet, cases_table, outside_table, write_outside
from training.evaluate.page.html_page import Page, Section
from training.evaluate.page.worst_cases import Mistake
from training.evaluate.pairs import PairMetrics, pairs_table
from training.evaluate.pointing_game import NEAR, Pointing
from training.evaluate.retrieval_metrics import ALIKE, Retrieval
from xray.mura.studies import Study, describe_counts
from xray.network.checkpoint import CheckpointManifest
from xray.predictor import StudyPrediction


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation: everything that `evaluate` reports.

    Attributes:
        left_out: number of files, folders and rows of the split that were skipped, by suffix or reason.
        overlap: number of its patients that are also in another split, by that split's name.
        pointing: results of the pointing game; None if the dataset has no boxes.
        retrieval: quality of the neighbors; None if no gallery was given.
        scoping: quality of the scope; None if no images out of scope were given.
        floors: what the AUROC is without looking for findings; None if they were not asked for.
        outside: results on each outside set; empty if none were given.
        pairs: results on counterfactual pairs, for each change; empty if they were not asked for.
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
    floors: Floors | None
    outside: tuple[OutsideSet, ...]
    pairs: tuple[PairMetrics, ...]


def write_tables(
    out: Path, evaluation: Evaluation, studies: Sequence[Study], predictions: Sequence[StudyPrediction]
) -> None:
    """Write an evaluation's studies.csv, radiographs.csv and outside.csv, from which its metrics are computed.

    All of them are written each time, so that none is left from an earlier evaluation.
    """
    write_outside(out, evaluation.outside)
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


def sections(evaluation: Evaluation) -> list[Section]:
    """Return an evaluation's sections: for each measurement with a table, the table and what it means."""
    found = [_neighbors_section(evaluation)] if evaluation.retrieval else []
    if evaluation.floors:
        found.append(_floors_section(evaluation.floors))
    if evaluation.outside:
        found.append(_outside_section(evaluation.outside))
    if evaluation.pairs:
        found.append(_pairs_section(evaluation.pairs))
    return found


def page_of(evaluation: Evaluation, sample: Sample, mistakes: Sequence[Mistake]) -> Page:
    """Return an evaluation's title, tables and remarks, with a sample and mistakes, as the contents of its page."""
    tables = as_table(evaluation), sections(evaluation)
    return Page(evaluation_title(evaluation), *tables, remarks(evaluation), sample, mistakes)


def print_evaluation(evaluation: Evaluation) -> None:
    """Print an evaluation's tables and remarks."""
    print(f"{evaluation_title(evaluation)}; 95 % intervals over patients; baseline: AUROC of the body part alone")
    _print_table(as_table(evaluation))
    print("\n".join(remarks(evaluation)))
    for section in sections(evaluation):
        print(f"\n{section.title}")
        _print_table(section.table)
        print(section.note)


def _neighbors_section(evaluation: Evaluation) -> Section:
    return Section(
        "How alike neighbors are",
        neighbors_table(evaluation),
        "Share of the nearest 1, 5 and 10 radiographs of other studies that have their query's body part, label, or "
        "both.",
    )


def _floors_section(floors: Floors) -> Section:
    missing = f" {floors.missing}" if floors.missing else ""
    return Section(
        "Floors",
        floors_table(floors),
        "AUROC that is reached without looking for findings: by the body part, by image statistics (size, gray levels, "
        "borders, sharpness and a thumbnail), and by the features of a network that has only seen photographs; fitted "
        f"on the {floors.fitted_on} studies of {FIT_SPLIT}. A network that is hardly above them knows little about "
        f"findings.{missing}",
    )


def _outside_section(sets: Sequence[OutsideSet]) -> Section:
    return Section(
        "Outside sets",
        outside_table(sets),
        "Shares of studies. False alarms: normal studies whose label is abnormal at the default threshold. Let in: all "
        "radiographs are in scope. Unfamiliar, decided: number of unfamiliar studies whose decision is not uncertain, "
        f"which must be 0. Same region: share of the {NEAREST} nearest radiographs of the gallery that show the body "
        f"region of their query; by chance: the same share of the whole gallery. {FILE} lists each study.",
        {f"{each.name}: {each.studies} studies by name": cases_table(each) for each in sets},
    )


def _pairs_section(pairs: Sequence[PairMetrics]) -> Section:
    return Section(
        "Counterfactual pairs",
        pairs_table(pairs),
        "Logit follows: share of the changed radiographs whose logit moves as it should, falling if the findings are "
        "erased and rising if a finding is pasted in. Null pairs are made by the same operation without a finding: a "
        "spare frame is erased, or a normal patch is pasted in; then the logit should move in that direction half of "
        "the time. Left out: radiographs whose findings are too large to be changed.",
    )


def _print_table(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
