"""Writes the HTML page of a site's report, with its curves."""

from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from training.evaluate.page.html_page import ACCENT, MUTED, as_data_url, curves
from training.evaluate.page.html_page import TEMPLATES as SHARED
from training.site.figures import SiteSample
from training.site.report import SiteReport

TEMPLATES = Path(__file__).parent / "templates"
"""Folder of the page's Jinja template, which includes the style of the evaluation's page."""
MAX_SHOWN = 3.0
"""Largest familiarity on the axis of the histogram; larger ones are in its last bar."""
BARS = 30
"""Number of bars of the histogram."""


def write_page(file: Path, report: SiteReport, site: SiteSample) -> None:
    """Write a site's report as one HTML page that needs no other file."""
    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, SHARED]), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    html = environment.get_template("site.html.jinja").render(
        title=report.title,
        counts=report.counts,
        verdict=report.verdict,
        reasons=report.reasons,
        table=report.table,
        drawings=draw_site(site),
    )
    file.write_text(html, encoding="utf-8")


def draw_site(site: SiteSample) -> dict[str, str]:
    """Draw a site's curves and its histogram of familiarity as SVG data URLs by title; none that cannot be drawn."""
    drawings = curves(site.answered)
    if len(site.answered.targets) and not np.isnan(site.familiarity_N).all():
        drawings["Familiarity"] = _draw_familiarity(site)
    return drawings


def _draw_familiarity(site: SiteSample) -> str:
    figure = Figure(figsize=(4.2, 4.0), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, MAX_SHOWN, BARS + 1).tolist()
    for target, color, label in ((0, MUTED, "normal"), (1, ACCENT, "abnormal")):
        chosen = site.in_scope_N & (site.sample.targets == target)
        axes.hist(site.familiarity_N[chosen].clip(max=MAX_SHOWN), edges, color=color, alpha=0.6, label=label)
    axes.axvline(1, ls=":", color="black", label="limit")
    axes.set(xlabel="familiarity of the study", ylabel="studies")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return as_data_url(figure)
