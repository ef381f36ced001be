"""Judges whether a site's figures meet the site's limits, and says in sentences what is missing."""

import math
from dataclasses import dataclass

from training.evaluate.metrics import Interval
from training.site.figures import TITLES, SiteFigures
from training.site.sample_size import further_studies
from training.site.site_data import MIN_PATIENTS
from xray.errors import InputError

MAX_FACTOR = 10
"""Largest multiple of the site's studies for which the number that is missing is told; more is no plan."""


@dataclass(frozen=True)
class SiteLimits:
    """The limits that a site sets; the pessimistic end of each 95 % interval must meet its limit.

    The defaults are a judgment and no standard: choose your own before you look at the figures.
    """

    min_auroc: float = 0.8
    """Minimum AUROC."""
    min_sensitivity: float = 0.8
    """Minimum sensitivity at the default threshold."""
    min_specificity: float = 0.7
    """Minimum specificity at the default threshold."""
    max_calibration_error: float = 0.15
    """Maximum expected calibration error."""
    min_in_scope: float = 0.95
    """Minimum share of studies that are in scope; the service refuses the others."""
    max_uncertain: float = 0.5
    """Maximum share of studies whose decision is `uncertain`."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}; give a share from 0 to 1.")


@dataclass(frozen=True)
class Requirement:
    """One limit of a site on one of its figures.

    Attributes:
        figure: one of `TITLES`.
        is_minimum: whether the figure must be at least the limit; otherwise at most.
    """

    figure: str
    limit: float
    is_minimum: bool

    @property
    def text(self) -> str:
        """The limit in the words of a site's table, such as `at least 0.800`."""
        return f"{'at least' if self.is_minimum else 'at most'} {self.limit:.3f}"

    def is_met_by(self, value: float) -> bool:
        """Return whether a value of the site's figure meets the limit; NaN does not."""
        return value >= self.limit if self.is_minimum else value <= self.limit

    def outcome(self, interval: Interval) -> str:
        """Return whether a site's figure shows that it meets the limit: `met`, `not shown` or `missed`."""
        if self.is_met_by(self.pessimistic_end(interval)):
            return "met"
        return "missed" if not math.isnan(interval.value) and not self.is_met_by(interval.value) else "not shown"

    def pessimistic_end(self, interval: Interval) -> float:
        """Return the end of the figure's interval that is nearer to missing the site's limit."""
        return interval.low if self.is_minimum else interval.high


def requirements(limits: SiteLimits) -> list[Requirement]:
    """Return a site's limits as one requirement each."""
    bounds = {"min": True, "max": False}
    split = [(name.partition("_"), value) for name, value in vars(limits).items()]
    return [Requirement(figure, value, bounds[bound]) for (bound, _, figure), value in split]


def judge(site: SiteFigures, limits: SiteLimits) -> tuple[str, ...]:
    """Return one sentence for each limit that a site does not meet, or does not show to meet; empty if it is fit."""
    counts = {"abnormal": site.abnormal_patients, "normal": site.normal_patients}
    missing = [
        f"{count} patients have {'an' if label == 'abnormal' else 'a'} {label} study in scope; "
        f"at least {MIN_PATIENTS} are needed to call a checkpoint fit."
        for label, count in counts.items()
        if count < MIN_PATIENTS
    ]
    shortfalls = [_shortfall(each, site) for each in requirements(limits)]
    return (*missing, *(sentence for sentence in shortfalls if sentence))


def _shortfall(required: Requirement, site: SiteFigures) -> str:
    """Return the sentence about a limit; empty if it is met or, with studies of one class, cannot be measured."""
    interval = site.figures[required.figure]
    end = required.pessimistic_end(interval)
    if math.isnan(interval.value) or required.is_met_by(end):
        return ""
    name = TITLES[required.figure]
    title = name[0].upper() + name[1:]
    if not required.is_met_by(interval.value):
        return f"{title} is {interval}: it must be {required.text}."
    return (
        f"{title} is {interval}: {interval.value:.3f} meets the limit, {required.text}, but {end:.3f} does not, so it "
        f"is not shown. {_further(site.studies, abs(interval.value - end), abs(interval.value - required.limit))}"
    )


def _further(studies: int, width: float, margin: float) -> str:
    """Return the sentence about the number of studies with which a site's half-interval fits into the margin."""
    if margin * math.sqrt(MAX_FACTOR) <= width:
        return f"It would take more than {MAX_FACTOR} times as many studies to show it."
    return f"About {further_studies(studies, width, margin):,} more studies like these would show it."
