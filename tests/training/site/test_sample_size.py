"""Intervals are those of the literature, and the number of missing studies is the number that suffices."""

import pytest

from tests.conftest import ROOT
from training.site.sample_size import (
    PlanSiteOptions,
    auroc_half_width,
    further_studies,
    half_width,
    plan_lines,
    wilson_interval,
)
from xray.errors import InputError


def test_share_has_the_interval_that_newcombe_prints() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I: 81 of 263, and 0 of 20.
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_auroc_has_the_standard_error_that_hanley_and_mcneil_print() -> None:
    # Their example: 51 abnormal and 58 normal images, an area of 0.893 and a standard error of 0.032.
    assert auroc_half_width(0.893, 51, 58) / 1.96 == pytest.approx(0.0325, abs=1e-3)


@pytest.mark.parametrize(("studies", "margin"), [(100, 0.05), (300, 0.02)])
def test_number_of_missing_studies_suffices_and_half_of_it_does_not(studies: int, margin: float) -> None:
    missing = further_studies(studies, half_width(wilson_interval(0.8, studies)), margin)
    assert half_width(wilson_interval(0.8, studies + missing)) == pytest.approx(margin, rel=0.01)
    assert half_width(wilson_interval(0.8, studies + missing // 2)) > margin


def test_more_abnormal_studies_make_sensitivity_surer_and_specificity_less_sure() -> None:
    rows = [line.split() for line in plan_lines(PlanSiteOptions(studies=(300,)))[2:]]
    sensitivity, specificity = ([float(row[column].lstrip("±")) for row in rows] for column in (3, 4))
    assert sensitivity == sorted(sensitivity, reverse=True)
    assert specificity == sorted(specificity)


def test_documentation_quotes_the_plan() -> None:
    assert "\n".join(plan_lines(PlanSiteOptions())) in (ROOT / "docs" / "site.md").read_text()


@pytest.mark.parametrize("options", [{"studies": (0,)}, {"abnormal": (0.1, 1.0)}, {"auroc": 0.0}])
def test_plans_without_a_study_of_each_class_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options))}"):
        PlanSiteOptions(**options)  # type: ignore[arg-type]
