"""The figures are what their definitions say, and the fast resampled ones are scikit-learn's."""

import numpy as np
import pytest

from training.evaluate.metrics import (
    FIGURES,
    Interval,
    Sample,
    auroc_difference,
    brier_score,
    calibration_error,
    calibration_error_with_interval,
    error_of_true_probabilities,
    figures,
    figures_with_intervals,
    mean_with_interval,
    resampled_figures,
)

TARGETS = np.array([0, 0, 1, 0, 1, 1])
PROBABILITIES = np.array([0.1, 0.4, 0.4, 0.6, 0.8, 0.9])


def drawn_sample(seed: int, studies: int = 80, patients: int = 30) -> Sample:
    """Probabilities on a coarse grid, so that many are equal."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, 2, studies)
    probabilities = np.clip(0.3 * targets + random.uniform(0, 0.7, studies), 0, 1).round(1)
    return Sample(targets, probabilities, random.integers(0, patients, studies).astype(str))


def test_figures_equal_those_by_hand() -> None:
    found = figures(Sample(TARGETS, PROBABILITIES, np.arange(6).astype(str)), threshold=0.5)
    # Of the 9 pairs 7 are ordered rightly and one is a tie.
    assert found["auroc"] == pytest.approx(7.5 / 9)
    # Falling: 0.9 and 0.8 are hits, 0.6 is not, the tie at 0.4 brings the third hit at 3 of 5.
    assert found["ap"] == pytest.approx((1 + 1 + 3 / 5) / 3)
    # Called: 0.6, 0.8, 0.9, so 2 hits, 1 false alarm, 1 miss; agreement 4/6, by chance 1/2.
    assert found["kappa"] == pytest.approx((4 / 6 - 1 / 2) / (1 - 1 / 2))
    for name in ("f1", "sensitivity", "specificity", "accuracy"):
        assert found[name] == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_resampled_figures_equal_scikit_learns_on_the_repeated_rows(seed: int) -> None:
    sample = drawn_sample(seed)
    counts = np.random.default_rng(seed).multinomial(80, np.full(80, 1 / 80), size=20)
    fast = resampled_figures(sample, 0.5, counts.astype(np.float64))
    for row, repeats in enumerate(counts):
        slow = figures(sample.rows(np.repeat(np.arange(80), repeats)), 0.5)
        assert {name: fast[name][row] for name in FIGURES} == pytest.approx(slow)


def test_resamples_with_one_class_leave_undefined_what_scikit_learn_does() -> None:
    sample = Sample(np.array([0, 1]), np.array([0.2, 0.7]), np.array(["a", "b"]))
    only_normal, only_abnormal = np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]])
    for counts, row in ((only_normal, 0), (only_abnormal, 1)):
        fast = {name: values[0] for name, values in resampled_figures(sample, 0.5, counts).items()}
        assert fast == pytest.approx(figures(sample.rows(np.array([row, row])), 0.5), nan_ok=True)


def test_intervals_hold_the_value_and_repeat() -> None:
    sample = drawn_sample(seed=5)
    found = figures_with_intervals(sample, 0.5, resamples=300)
    assert tuple(found) == FIGURES
    for interval in found.values():
        assert interval.low < interval.value < interval.high
    assert figures_with_intervals(sample, 0.5, resamples=300) == found


def test_studies_of_one_patient_count_as_one_draw() -> None:
    single = drawn_sample(seed=6, patients=10**9)
    four_times = np.tile(np.arange(80), 4)
    repeated = single.rows(four_times)
    assert (
        figures_with_intervals(repeated, 0.5, 300)["accuracy"] == figures_with_intervals(single, 0.5, 300)["accuracy"]
    )
    taken_for_independent = Sample(repeated.targets, repeated.probabilities, np.arange(320).astype(str))
    narrow = figures_with_intervals(taken_for_independent, 0.5, 300)["accuracy"]
    wide = figures_with_intervals(single, 0.5, 300)["accuracy"]
    assert narrow.high - narrow.low < 0.7 * (wide.high - wide.low)


def test_one_class_alone_leaves_auroc_and_its_interval_undefined() -> None:
    sample = Sample(np.zeros(4, np.int64), np.array([0.1, 0.2, 0.3, 0.9]), np.array(list("abcd")))
    found = figures_with_intervals(sample, 0.5, resamples=50)
    assert np.isnan([found["auroc"].value, found["auroc"].low, found["auroc"].high]).all()
    assert found["specificity"].value == 0.75


def test_an_interval_below_zero_reads_unambiguously() -> None:
    assert str(Interval(0.161, -0.187, 0.486)) == "0.161 (-0.187 to 0.486)"


def reader(seed: int, strength: float) -> Sample:
    random = np.random.default_rng(seed)
    targets = (np.arange(300) % 3 == 0).astype(np.int64)
    noise = np.random.default_rng(99).normal(size=300)  # the same for all: readers find the same studies hard
    logits = strength * targets + noise + 0.2 * random.normal(size=300)
    return Sample(targets, 1 / (1 + np.exp(-logits)), np.array([f"patient{number // 2}" for number in range(300)]))


def test_paired_gain_is_surer_than_two_intervals_apart() -> None:
    weak, strong = reader(0, 1.0), reader(1, 1.3)
    gain = auroc_difference(weak, strong, resamples=500)
    areas = [figures_with_intervals(sample, 0.5, 500)["auroc"] for sample in (weak, strong)]
    assert gain.value == pytest.approx(areas[1].value - areas[0].value)
    assert gain.low > 0
    assert areas[1].low < areas[0].high
    assert auroc_difference(weak, weak, resamples=50) == Interval(0.0, 0.0, 0.0)


def test_probabilities_equal_to_the_frequencies_have_no_calibration_error() -> None:
    random = np.random.default_rng(0)
    probabilities = random.random(60_000)
    targets = (random.random(60_000) < probabilities).astype(np.int64)
    assert calibration_error(targets, probabilities) < 0.01
    assert brier_score(targets, probabilities) == pytest.approx(1 / 6, abs=0.01)
    halved = probabilities / 2
    assert calibration_error(targets, halved) == pytest.approx(0.25, abs=0.01)


def test_few_true_probabilities_show_a_calibration_error_and_false_ones_a_greater() -> None:
    random = np.random.default_rng(0)
    probabilities = random.random(300)
    targets = (random.random(300) < probabilities).astype(np.int64)
    by_chance = error_of_true_probabilities(probabilities, resamples=200)
    assert 0.02 < by_chance.low < calibration_error(targets, probabilities) < by_chance.high
    assert calibration_error(targets, probabilities**3) > by_chance.high


def test_interval_of_a_mean_widens_where_values_are_of_few_patients() -> None:
    values = np.random.default_rng(0).normal(size=200)
    own, few = np.array([str(n) for n in range(200)]), np.array([str(n // 40) for n in range(200)])
    means = [mean_with_interval(values + (np.arange(200) // 40), patients, 500) for patients in (own, few)]
    assert means[0].value == means[1].value
    assert means[1].high - means[1].low > 2 * (means[0].high - means[0].low)


def test_interval_of_the_calibration_error_is_around_it_and_widens_where_studies_are_of_few_patients() -> None:
    random = np.random.default_rng(0)
    probabilities = random.random(600)
    targets = (random.random(600) < probabilities / 2).astype(np.int64)
    many, few = (
        calibration_error_with_interval(Sample(targets, probabilities, (np.arange(600) % patients).astype(str)), 300)
        for patients in (600, 12)
    )
    assert many.value == few.value == calibration_error(targets, probabilities)
    assert many.low < many.value < many.high
    # The mean of half a probability is 0.25 below that of the probability, whichever studies are drawn.
    assert (many.low, many.high) == pytest.approx((0.25, 0.25), abs=0.06)
    assert many.high - many.low > 0.03
