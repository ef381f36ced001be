"""Writes the HTML page of an evaluation, with its curves."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn import metrics
from sklearn.calibration import calibration_curve

from training.evaluate.metrics import Sample
from training.evaluate.page.worst_cases import Mistake

TEMPLATES = Path(__file__).parent / "templates"
"""Folder of the page's Jinja template."""
RELIABILITY_BINS = 8
"""Number of bins of the reliability curve, each with the same number of studies."""
ACCENT = "#0b7285"
"""Color of the network's curves."""
MUTED = "#98a6b3"
"""Color of the curves for comparison."""


Table = Sequence[Sequence[str]]
"""A header, then lines of as many cells; intervals as `0.812 (0.741 to 0.871)`."""


@dataclass(frozen=True)
class Section:
    """A section of the page of an evaluation.

    Attributes:
        note: what the table's columns mean.
        details: more tables by their titles, which the page shows on a click.
    """

    title: str
    table: Table
    note: str
    details: Mapping[str, Table] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """What the HTML page of an evaluation shows.

    Attributes:
        table: one line for each group, first all studies.
        sections: one section for each measurement that has a table.
        sentences: one sentence for each other measurement.
        sample: all studies, for the curves.
    """

    title: str
    table: Table
    sections: Sequence[Section]
    sentences: Sequence[str]
    sample: Sample
    mistakes: Sequence[Mistake]


def write_page(file: Path, page: Page) -> None:
    """Write an evaluation as one HTML page that needs no other file."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    template = environment.get_template("evaluation.html.jinja")
    html = template.render(
        title=page.title,
        table=page.table,
        sections=page.sections,
        sentences=page.sentences,
        curves=curves(page.sample),
        mistakes=page.mistakes,
    )
    file.write_text(html, encoding="utf-8")


def curves(sample: Sample) -> dict[str, str]:
    """Draw the page's ROC, precision-recall and reliability curves as SVG data URLs by title; empty for one class."""
    if len(np.unique(sample.targets)) < 2:
        return {}
    drawings = {"ROC": _draw_roc, "Precision and recall": _draw_precision, "Reliability": _draw_reliability}
    return {title: _svg(draw, sample) for title, draw in drawings.items()}


def _draw_roc(axes: Axes, sample: Sample) -> None:
    false_rates, true_rates, _ = metrics.roc_curve(sample.targets, sample.probabilities, drop_intermediate=False)
    axes.plot(false_rates, true_rates, color=ACCENT, label=f"network, {metrics.auc(false_rates, true_rates):.3f}")
    axes.plot([0, 1], [0, 1], ":", color=MUTED, label="chance, 0.500")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    axes.legend(loc="lower right", frameon=False)


def _draw_precision(axes: Axes, sample: Sample) -> None:
    precision, recall, _ = metrics.precision_recall_curve(sample.targets, sample.probabilities)
    area = metrics.average_precision_score(sample.targets, sample.probabilities)
    share = sample.targets.mean()
    axes.plot(recall, precision, color=ACCENT, drawstyle="steps-post", label=f"network, {area:.3f}")
    axes.axhline(share, ls=":", color=MUTED, label=f"share abnormal, {share:.3f}")
    axes.set(xlabel="sensitivity (recall)", ylabel="precision")
    axes.legend(loc="lower left", frameon=False)


def _draw_reliability(axes: Axes, sample: Sample) -> None:
    observed, predicted = calibration_curve(
        sample.targets, sample.probabilities, n_bins=RELIABILITY_BINS, strategy="quantile"
    )
    axes.plot([0, 1], [0, 1], ":", color=MUTED, label="calibrated")
    axes.plot(predicted, observed, "o-", color=ACCENT, label="network")
    axes.vlines(sample.probabilities[sample.targets == 0], 0, 0.03, color=MUTED, alpha=0.5, lw=0.8)
    axes.vlines(sample.probabilities[sample.targets == 1], 0.97, 1, color=ACCENT, alpha=0.5, lw=0.8)
    axes.set(xlabel="probability of abnormality", ylabel="share abnormal")
    axes.legend(loc="upper left", frameon=False, bbox_to_anchor=(0, 0.96))


def _svg(draw: Callable[[Axes, Sample], None], sample: Sample) -> str:
    figure = Figure(figsize=(4.2, 4.0), layout="constrained")
    axes = figure.subplots()
    draw(axes, sample)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.spines[["top", "right"]].set_visible(False)
    return as_data_url(figure)


def as_data_url(figure: Figure) -> str:
    """Return a drawing for a page as the data URL of an SVG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
