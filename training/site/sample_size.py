"""Computes how wide the intervals of a site's figures are, for a number of labeled studies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from training.evaluate.metrics import COVERAGE
from xray.errors import InputError

Z = NormalDist().inv_cdf((1 + COVERAGE) / 2)
"""Standard errors on either side of a 95 % interval: 1.96."""


@dataclass(frozen=True)
class PlanSiteOptions:
    """Print how wide 95 % intervals are, for numbers of a site's labeled studies and shares of abnormal ones."""

    studies: tuple[int, ...] = (100, 200, 300, 500, 1000)
    """Numbers of studies, each of another patient."""
    abnormal: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    """Shares of abnormal studies."""
    auroc: float = 0.85
    """AUROC that you expect; intervals are narrower for a larger one."""
    sensitivity: float = 0.85
    """Sensitivity that you expect."""
    specificity: float = 0.85
    """Specificity that you expect."""

    def __post_init__(self) -> None:
        if min(self.studies) < 1:
            raise InputError(f"--studies holds {min(self.studies)}; give numbers of at least 1.")
        for name in ("abnormal", "auroc", "sensitivity", "specificity"):
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (value,)
            if not all(0 < each < 1 for each in values):
                raise InputError(f"--{name} is {value}; give shares above 0 and below 1.")


def plan_site(options: PlanSiteOptions) -> None:
    """Print the table of half-widths that helps to choose how many studies a site collects."""
    print("\n".join(plan_lines(options)))


def plan_lines(options: PlanSiteOptions) -> list[str]:
    """Return the table of a site's half-widths as lines of text: a title, a header, and a line for each number."""
    expected = f"AUROC {options.auroc}, sensitivity {options.sensitivity}, specificity {options.specificity}"
    lines = [f"half-widths of 95 % intervals for {expected}", "studies  abnormal     AUROC  sensitivity  specificity"]
    for studies in options.studies:
        for share in options.abnormal:
            abnormal = round(studies * share)
            normal = studies - abnormal
            if not abnormal or not normal:
                continue
            widths = (
                auroc_half_width(options.auroc, abnormal, normal),
                half_width(wilson_interval(options.sensitivity, abnormal)),
                half_width(wilson_interval(options.specificity, normal)),
            )
            area, sensitivity, specificity = (f"±{width:.3f}" for width in widths)
            lines.append(f"{studies:7}  {abnormal:8}    {area}       {sensitivity}       {specificity}")
    return lines


def auroc_half_width(area: float, abnormal: int, normal: int) -> float:
    """Return the half-width of the 95 % interval of a site's AUROC (Hanley and McNeil 1982).

    Args:
        area: the AUROC.
        abnormal: number of abnormal studies.
        normal: number of normal studies.
    """
    two_abnormal, two_normal = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (abnormal - 1) * (two_abnormal - area**2) + (normal - 1) * (two_normal - area**2)
    return Z * math.sqrt(variance / (abnormal * normal))


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a share among a site's `count` studies (Wilson 1927)."""
    center = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    width = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    return max(0.0, center - width), min(1.0, center + width)


def half_width(ends: Sequence[float]) -> float:
    """Return half of the distance between the ends of an interval of a site's figure."""
    return (ends[1] - ends[0]) / 2


def further_studies(studies: int, width: float, margin: float) -> int:
    """Return how many studies a site needs in addition, until a half-interval of `width` is no wider than `margin`.

    An interval narrows with the square root of the number of studies, if the further ones are like these.
    """
    return math.ceil(studies * (width / margin) ** 2) - studies
