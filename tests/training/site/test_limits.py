"""A checkpoint is called fit only if the studies show it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.training.site.drawn import draw_logits, sigmoid, site_sample
from training.evaluate.metrics import Interval
from training.site.figures import SiteFigures, measure_site
from training.site.limits import SiteLimits, judge, requirements
from training.site.site_data import MIN_PATIENTS
from xray.errors import InputError

GOOD = {
    "auroc": Interval(0.90, 0.85, 0.94),
    "sensitivity": Interval(0.88, 0.82, 0.93),
    "specificity": Interval(0.85, 0.80, 0.89),
    "false_alarms": Interval(0.15, 0.11, 0.20),
    "calibration_error": Interval(0.05, 0.04, 0.10),
    "in_scope": Interval(0.99, 0.97, 1.0),
    "familiar": Interval(0.9, 0.85, 0.95),
    "uncertain": Interval(0.2, 0.15, 0.25),
    "wrong_decisions": Interval(0.08, 0.05, 0.12),
}


def site(**changed: Interval) -> SiteFigures:
    return SiteFigures(300, 300, 300, 100, 200, GOOD | changed)


def test_checkpoint_is_fit_if_the_pessimistic_end_of_every_interval_meets_its_limit() -> None:
    assert judge(site(), SiteLimits()) == ()


@pytest.mark.parametrize(
    ("figure", "interval"),
    [
        ("auroc", Interval(0.85, 0.79, 0.9)),
        ("sensitivity", Interval(0.85, 0.79, 0.9)),
        ("specificity", Interval(0.75, 0.69, 0.8)),
        ("calibration_error", Interval(0.12, 0.1, 0.16)),
        ("in_scope", Interval(0.97, 0.94, 0.99)),
        ("uncertain", Interval(0.45, 0.4, 0.51)),
    ],
)
def test_limit_that_the_estimate_meets_and_the_interval_does_not_is_not_shown(figure: str, interval: Interval) -> None:
    (sentence,) = judge(site(**{figure: interval}), SiteLimits())
    assert "is not shown. About" in sentence
    assert sentence.endswith("more studies like these would show it.")


def test_number_of_missing_studies_is_that_which_narrows_the_interval_to_the_limit() -> None:
    (sentence,) = judge(site(auroc=Interval(0.8125, 0.6875, 0.9)), SiteLimits(min_auroc=0.75))
    # The lower half has to be half as wide, which takes four times as many.
    assert "About 900 more studies" in sentence


def test_limit_that_the_estimate_hardly_meets_has_no_number() -> None:
    (sentence,) = judge(site(auroc=Interval(0.8001, 0.76, 0.9)), SiteLimits())
    assert "It would take more than 10 times as many studies" in sentence


def test_limit_that_the_estimate_misses_is_not_met_whatever_its_interval() -> None:
    (sentence,) = judge(site(sensitivity=Interval(0.79, 0.7, 0.9)), SiteLimits())
    assert sentence == "Sensitivity is 0.790 (0.700 to 0.900): it must be at least 0.800."


def test_site_sets_its_own_limits() -> None:
    strict = SiteLimits(min_auroc=0.95, min_specificity=0.0)
    assert ["AUROC" in sentence for sentence in judge(site(), strict)] == [True]
    assert {each.figure: each.is_minimum for each in requirements(strict)}["calibration_error"] is False


@pytest.mark.parametrize("counts", [{"abnormal_patients": 0}, {"normal_patients": MIN_PATIENTS - 1}])
def test_one_class_or_too_few_studies_are_never_fit(counts: dict[str, int]) -> None:
    (sentence,) = judge(replace(site(), **counts), SiteLimits())  # type: ignore[arg-type]
    assert f"at least {MIN_PATIENTS} are needed" in sentence


@pytest.mark.parametrize("target", [0, 1])
def test_perfect_answers_for_studies_of_one_class_are_not_fit(target: int) -> None:
    targets = np.full(400, target)
    figures = measure_site(site_sample(targets.astype(float), targets), resamples=100)
    no_limits = SiteLimits(0, 0, 0, 1, 0, 1)
    assert len(judge(figures, no_limits)) == 1


@pytest.mark.slow
def test_checkpoint_that_is_at_the_limit_is_rarely_called_fit() -> None:
    """Intervals hold what they promise: at a true sensitivity of the limit, at most some 2.5 % of sites say fit."""
    limits, fit = SiteLimits(0, 0.8, 0, 1, 0, 1), 0
    reference, labels = draw_logits(0, 100_000)
    threshold = float(np.quantile(sigmoid(reference[labels == 1]), 0.2))
    for seed in range(1, 101):
        logits, targets = draw_logits(seed, 300)
        figures = measure_site(site_sample(sigmoid(logits), targets, threshold), resamples=100)
        fit += not judge(figures, limits)
    assert fit <= 7


def test_documentation_names_the_default_limits() -> None:
    page = (ROOT / "docs" / "site.md").read_text()
    for name, default in vars(SiteLimits()).items():
        assert re.search(rf"^\| `--{name.replace('_', '-')}` \| .* \| {default} \|$", page, re.MULTILINE), name


def test_limits_are_shares() -> None:
    with pytest.raises(InputError, match="--min-auroc is 80"):
        SiteLimits(min_auroc=80)
