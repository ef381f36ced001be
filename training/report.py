"""Results in, tables, pictures and pages out."""

import base64
import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn import metrics
from sklearn.calibration import calibration_curve

from training.evaluate import Evaluation, positive_shares
from training.metrics import COVERAGE, FloatArray
from training.state import EpochResult

TEMPLATES = Path(__file__).parent / "templates"
SHOWN_FIGURES = {
    "auroc": "AUROC",
    "ap": "AP",
    "kappa": "kappa",
    "f1": "F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
RELIABILITY_BINS = 8
"""Each with as many studies as the others."""
INK, ACCENT, MUTED = "#1c2733", "#0b7285", "#98a6b3"


def draw_history(history: Sequence[EpochResult], file: Path) -> None:
    """Losses, AUROC and learning rate over the epochs of a run, as a PNG."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    losses, areas, rates = figure.subplots(1, 3)
    epochs = [result.epoch + 1 for result in history]
    losses.plot(epochs, [result.training_loss for result in history], label="training")
    losses.plot(epochs, [result.validation_loss for result in history], label="validation")
    losses.legend()
    areas.plot(epochs, [result.validation_auroc for result in history])
    rates.semilogy(epochs, [result.learning_rate for result in history])
    for axes, title in ((losses, "loss"), (areas, "validation AUROC"), (rates, "learning rate")):
        axes.set(title=title, xlabel="epoch")
    figure.savefig(file)


def table(evaluation: Evaluation) -> str:
    """The figures of every group as lines of text."""
    header = ["", "studies", "positive", "floor", *SHOWN_FIGURES.values()]
    rows = [
        [group.name, str(group.studies), str(group.positives), f"{group.floor.value:.3f}"]
        + [str(group.figures[name]) for name in SHOWN_FIGURES]
        for group in evaluation.groups
    ]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    overall = evaluation.groups[0]
    return "\n".join(
        [
            f"{evaluation.dataset} {evaluation.split}, checkpoint {evaluation.checkpoint} ({evaluation.architecture}), "
            f"threshold {evaluation.threshold:.3f}, {COVERAGE:.0%} intervals over patients",
            *lines,
            f"floor: the body part alone, without the radiograph, gives AUROC {overall.floor}",
        ]
    )


def write_report(evaluation: Evaluation, out: Path) -> None:
    """OUT/metrics.json, OUT/studies.csv, OUT/radiographs.csv and OUT/index.html."""
    out.mkdir(parents=True, exist_ok=True)
    figures = {name: value for name, value in asdict(evaluation).items() if name != "studies"}
    (out / "metrics.json").write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    rows = [asdict(study) for study in evaluation.studies]
    views = [view for row in rows for view in row.pop("radiographs")]
    _write_csv(out / "studies.csv", rows)
    _write_csv(out / "radiographs.csv", views)
    (out / "index.html").write_text(page(evaluation), encoding="utf-8")


def page(evaluation: Evaluation) -> str:
    """The evaluation as one HTML page that needs no other file."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("evaluation.html.jinja").render(
        evaluation=evaluation,
        overall=evaluation.groups[0],
        columns=SHOWN_FIGURES,
        coverage=COVERAGE,
        plots=plots(evaluation),
    )


def plots(evaluation: Evaluation) -> dict[str, str]:
    """ROC, precision-recall and reliability curves as SVG data URLs by title; none where a class is missing."""
    targets = np.array([study.target for study in evaluation.studies])
    probabilities = np.array([study.probability for study in evaluation.studies])
    if len(np.unique(targets)) < 2:
        return {}
    shares = positive_shares(evaluation.studies)
    guesses = np.array([shares[study.body_part] for study in evaluation.studies])
    threshold = evaluation.threshold
    return {
        "ROC": _svg(lambda axes: _draw_roc(axes, targets, {"network": probabilities, "body part": guesses}, threshold)),
        "Precision and recall": _svg(lambda axes: _draw_precision(axes, targets, probabilities, threshold)),
        "Reliability": _svg(lambda axes: _draw_reliability(axes, targets, probabilities)),
    }


def _draw_roc(axes: Axes, targets: FloatArray, answers: dict[str, FloatArray], threshold: float) -> None:
    for (name, probabilities), colour in zip(answers.items(), (ACCENT, MUTED), strict=True):
        false_rates, true_rates, _ = metrics.roc_curve(targets, probabilities, drop_intermediate=False)
        axes.plot(false_rates, true_rates, color=colour, label=f"{name}, {metrics.auc(false_rates, true_rates):.3f}")
    called = answers["network"] >= threshold
    axes.plot(called[targets == 0].mean(), called[targets == 1].mean(), "o", color=INK, label="threshold")
    axes.plot([0, 1], [0, 1], ":", color=MUTED)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    axes.legend(loc="lower right", frameon=False)


def _draw_precision(axes: Axes, targets: FloatArray, probabilities: FloatArray, threshold: float) -> None:
    precision, recall, _ = metrics.precision_recall_curve(targets, probabilities)
    area = metrics.average_precision_score(targets, probabilities)
    axes.plot(recall, precision, color=ACCENT, drawstyle="steps-post", label=f"network, {area:.3f}")
    called = probabilities >= threshold
    if called.any():
        axes.plot(called[targets == 1].mean(), targets[called].mean(), "o", color=INK, label="threshold")
    axes.axhline(targets.mean(), ls=":", color=MUTED, label="share of positives")
    axes.set(xlabel="sensitivity (recall)", ylabel="precision")
    axes.legend(loc="upper right", frameon=False)


def _draw_reliability(axes: Axes, targets: FloatArray, probabilities: FloatArray) -> None:
    observed, predicted = calibration_curve(targets, probabilities, n_bins=RELIABILITY_BINS, strategy="quantile")
    axes.plot([0, 1], [0, 1], ":", color=MUTED, label="perfectly calibrated")
    axes.plot(predicted, observed, "o-", color=ACCENT, label="network")
    axes.vlines(probabilities[targets == 0], 0, 0.03, color=MUTED, alpha=0.5, lw=0.8)
    axes.vlines(probabilities[targets == 1], 0.97, 1, color=ACCENT, alpha=0.5, lw=0.8)
    axes.set(xlabel="probability of abnormality", ylabel="share abnormal")
    axes.legend(loc="upper left", frameon=False, bbox_to_anchor=(0, 0.96))


def _svg(draw: Callable[[Axes], None]) -> str:
    figure = Figure(figsize=(4.2, 4.0), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _write_csv(file: Path, rows: Iterable[dict[str, object]]) -> None:
    ordered = list(rows)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(ordered[0]))
        writer.writeheader()
        writer.writerows(ordered)
