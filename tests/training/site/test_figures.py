"""Figures of a site are those that can be counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from tests.training.site.drawn import site_sample
from training.site.figures import TITLES, measure_site

TARGETS = np.array([1] * 4 + [0] * 6)
PROBABILITIES = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.4, 0.3, 0.1, 0.1, 0.1])


def test_figures_are_counted_over_the_studies() -> None:
    figures = measure_site(site_sample(PROBABILITIES, TARGETS), resamples=200).figures
    assert set(figures) == set(TITLES)
    assert figures["sensitivity"].value == pytest.approx(3 / 4)
    assert figures["specificity"].value == pytest.approx(5 / 6)
    assert figures["false_alarms"].value == pytest.approx(1 / 6)
    # Of the 24 pairs, three abnormal studies win all 6, and the one with 0.2 wins 3.
    assert figures["auroc"].value == pytest.approx((3 * 6 + 3) / 24)
    assert (figures["in_scope"].value, figures["familiar"].value, figures["uncertain"].value) == (1, 1, 0)
    assert figures["wrong_decisions"].value == pytest.approx(2 / 10)


def test_study_out_of_scope_counts_in_the_share_in_scope_only() -> None:
    site = site_sample(PROBABILITIES, TARGETS)
    in_scope = PROBABILITIES != 0.2
    measured = measure_site(replace(site, in_scope_N=in_scope), resamples=200)
    assert (measured.studies, measured.answered, measured.abnormal_patients) == (10, 9, 3)
    assert measured.figures["in_scope"].value == pytest.approx(9 / 10)
    assert measured.figures["sensitivity"].value == 1


def test_errors_are_counted_among_the_decided_only() -> None:
    site = site_sample(PROBABILITIES, TARGETS)
    decisions = np.where((PROBABILITIES > 0.35) & (PROBABILITIES < 0.75), "uncertain", site.decisions_N)
    figures = measure_site(replace(site, decisions_N=decisions), resamples=200).figures
    assert figures["uncertain"].value == pytest.approx(3 / 10)
    assert figures["wrong_decisions"].value == pytest.approx(1 / 7)


def test_no_error_in_a_few_studies_does_not_prove_that_there_is_none() -> None:
    """A bootstrap of ten right answers has ten right answers each time, so that its interval has no width."""
    figures = measure_site(site_sample(TARGETS.astype(float), TARGETS), resamples=200).figures
    assert figures["sensitivity"].high == 1
    assert figures["sensitivity"].low == pytest.approx(0.51, abs=0.01)  # Wilson's, of 4
    assert figures["in_scope"].low < 0.75


def test_many_studies_of_one_patient_count_like_one() -> None:
    many = np.tile(TARGETS, 30), np.tile(PROBABILITIES, 30)
    owners = np.tile(np.arange(len(TARGETS)), 30).astype(str)
    alone = measure_site(site_sample(many[1], many[0]), resamples=200).figures["sensitivity"]
    shared = measure_site(site_sample(many[1], many[0], patients=owners), resamples=200).figures["sensitivity"]
    assert shared.value == alone.value
    assert shared.high - shared.low > 3 * (alone.high - alone.low)


def test_checkpoint_without_a_limit_of_familiarity_has_no_share_of_it() -> None:
    site = replace(site_sample(PROBABILITIES, TARGETS), familiarity_N=np.full(len(TARGETS), np.nan))
    assert np.isnan(measure_site(site, resamples=10).figures["familiar"].value)


def test_site_without_a_study_in_scope_has_that_figure_alone() -> None:
    site = replace(site_sample(PROBABILITIES, TARGETS), in_scope_N=np.zeros(len(TARGETS), bool))
    figures = measure_site(site, resamples=10).figures
    assert figures["in_scope"].value == 0
    assert all(np.isnan(each.value) for name, each in figures.items() if name != "in_scope")
