"""A classifier's weights change only if that predicts a site's further studies better."""

import numpy as np
import pytest

from tests.training.site.drawn import sigmoid
from training.evaluate.metrics import auroc, calibration_error
from training.export.calibrate import FloatArray, fit_calibration
from training.site.fit_weights import LinearStudies, WeightChange, choose_change, fit_change

NUMBERS = 100
"""Numbers of a feature."""


def draw(seed: int, count: int, unused: float) -> LinearStudies:
    """Studies whose findings show in one number that the old weights use, and `unused` as much in one they do not."""
    random = np.random.default_rng(seed)
    targets = (random.random(count) < 0.3).astype(np.int64)
    features = random.normal(5, 1, (count, NUMBERS))
    features[:, 0] += targets
    features[:, 1] += unused * targets
    return LinearStudies(features[:, 0] - 5, features, targets, np.arange(count).astype(str))


@pytest.fixture(scope="module")
def site() -> LinearStudies:
    return draw(0, 300, unused=2.0)


def test_weights_that_use_more_of_the_site_rank_further_studies_better(site: LinearStudies) -> None:
    chosen = choose_change(site)
    assert chosen is not None
    further = draw(1, 5000, unused=2.0)
    before, after = auroc(further.targets_N, further.logits_N), auroc(further.targets_N, chosen.change.logits(further))
    assert after > before + 0.1
    assert chosen.loss < chosen.old_loss


def test_weights_are_kept_where_nothing_is_to_be_gained() -> None:
    assert choose_change(draw(0, 300, unused=0.0)) is None


def test_held_out_logits_calibrate_further_studies_and_those_of_the_fit_do_not(site: LinearStudies) -> None:
    chosen = choose_change(site)
    assert chosen is not None
    further = draw(1, 20_000, unused=2.0)
    held_out = np.choose(chosen.folds_N, [change.logits(site) for change in chosen.fold_changes])

    def error(logits_N: FloatArray) -> float:
        calibration = fit_calibration(logits_N, site.targets_N)
        probabilities = sigmoid(calibration.slope * chosen.change.logits(further) + calibration.intercept)
        return calibration_error(further.targets_N, probabilities)

    assert error(held_out) < 0.05
    assert error(held_out) < error(chosen.change.logits(site))


def test_larger_penalty_holds_the_weights_nearer_to_the_old_ones(site: LinearStudies) -> None:
    lengths = [np.linalg.norm(fit_change(site, penalty).weights_C) for penalty in (1e-4, 1e-2, 1.0, 100.0)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < 0.05 * lengths[0]


def test_mean_logit_of_the_site_stays_as_it_was(site: LinearStudies) -> None:
    change = fit_change(site, 0.01)
    assert change.logits(site).mean() == pytest.approx(site.logits_N.mean(), abs=1e-6)


def test_studies_of_a_patient_are_in_one_fold() -> None:
    drawn = draw(2, 300, unused=2.0)
    patients = (np.arange(300) // 3).astype(str)
    shared = LinearStudies(drawn.logits_N, drawn.gradients_NC, drawn.targets_N, patients)
    chosen = choose_change(shared)
    assert chosen is not None
    assert all(len(set(chosen.folds_N[patients == patient])) == 1 for patient in np.unique(patients))
    assert isinstance(chosen.change, WeightChange)
