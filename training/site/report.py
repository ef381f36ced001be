"""The report on a site: its figures and the judgment, with their table and sentences."""

import math
from dataclasses import dataclass

from training.site.figures import TITLES, SiteFigures
from training.site.limits import SiteLimits, requirements
from xray.mura.studies import describe_counts
from xray.network.checkpoint import CheckpointManifest, TrainingData


@dataclass(frozen=True)
class SiteReport:
    """What a checkpoint is worth on a site's studies; the content of metrics.json.

    Attributes:
        site: the site's studies, by name and fingerprint.
        left_out: number of files, folders and rows of the split that were skipped, by suffix or reason.
        limits: the limits that the site set.
        reasons: one sentence for each limit that is not met or not shown to be met; empty if the checkpoint is fit.
    """

    checkpoint: CheckpointManifest
    site: TrainingData
    split: str
    left_out: dict[str, int]
    limits: SiteLimits
    figures: SiteFigures
    reasons: tuple[str, ...]

    @property
    def fit(self) -> bool:
        """Whether the checkpoint is fit for the site: every limit is shown to be met."""
        return not self.reasons

    @property
    def title(self) -> str:
        """The title of the site's report, with the checkpoint and the split."""
        return f"Checkpoint {self.checkpoint.id} on {self.site.name} {self.split}"

    @property
    def verdict(self) -> str:
        """The first line of the judgment on the site."""
        return f"FIT for {self.site.name}" if self.fit else f"NOT FIT for {self.site.name}"

    @property
    def counts(self) -> str:
        """The sentence that counts the site's studies."""
        figures = self.figures
        left_out = f" Left out: {describe_counts(self.left_out)}." if self.left_out else ""
        return (
            f"{figures.studies} studies of {figures.patients} patients; {figures.answered} studies are in scope: "
            f"{figures.abnormal_patients} patients have an abnormal one, {figures.normal_patients} a normal one."
            f"{left_out}"
        )

    @property
    def table(self) -> list[list[str]]:
        """The site's table: a header, then each figure with its interval, its limit and whether it is shown."""
        required = {each.figure: each for each in requirements(self.limits)}
        lines = [["", "value (95 % interval)", "limit", ""]]
        for name, title in TITLES.items():
            interval = self.figures.figures[name]
            shown = "-" if math.isnan(interval.value) else str(interval)
            limit = required.get(name)
            lines.append([title, shown, limit.text if limit else "", limit.outcome(interval) if limit else ""])
        return lines


def print_report(report: SiteReport) -> None:
    """Print a site's table, and whether the checkpoint is fit for the site."""
    print(f"{report.title}\n{report.counts}")
    widths = [max(map(len, column)) for column in zip(*report.table, strict=True)]
    for line in report.table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print("\n".join([report.verdict, *(f"- {reason}" for reason in report.reasons)]))
