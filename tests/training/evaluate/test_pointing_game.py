"""The pointing game counts what can be counted by hand."""

import numpy as np
import pytest

from training.dataset.annotations import Box
from training.evaluate.pointing_game import LONGEST_SIDE, NEAR, distances, overlap, play
from xray.network.cam import Cam, Region

HEIGHT, WIDTH = 2 * LONGEST_SIDE, LONGEST_SIDE
FINDING = Box(left=0.5, top=0.25, width=0.1, height=0.05)
ROWS, COLUMNS = slice(112, 134), slice(112, 134)
"""Its pixels."""


def peaked(row: int, column: int) -> Cam:
    evidence = np.zeros((HEIGHT, WIDTH), np.float32)
    evidence[row, column] = 1
    return Cam(evidence)


def test_distances_are_measured_on_the_scaled_radiograph() -> None:
    apart = distances((HEIGHT, WIDTH), [FINDING])
    assert not apart[ROWS, COLUMNS].any()
    assert apart[120, 134 + 19] == pytest.approx(20 / 2)
    assert apart[0, 0] == pytest.approx(np.hypot(112, 112) / 2)


@pytest.mark.parametrize(
    ("column", "hit", "near"),
    [(120, 1.0, 1.0), (134 + 2 * NEAR - 2, 0.0, 1.0), (134 + 2 * NEAR + 2, 0.0, 0.0)],
)
def test_peak_hits_is_near_or_neither(column: int, hit: float, near: float) -> None:
    assert play(peaked(120, column), [FINDING])[:2] == (hit, near)


def test_energy_is_the_share_of_evidence_inside() -> None:
    evidence = peaked(120, 120).evidence_HW + 3 * peaked(400, 10).evidence_HW
    assert play(Cam(evidence), [FINDING]).energy == pytest.approx(0.25)
    assert play(Cam(np.zeros((HEIGHT, WIDTH), np.float32)), [FINDING]).energy == 0


@pytest.mark.parametrize(
    ("region", "share"), [((112, 112, 22, 22), 1.0), ((101, 112, 22, 22), 1 / 3), ((0, 0, 22, 22), 0.0)]
)
def test_overlap_is_the_shared_part_of_region_and_box(region: tuple[int, int, int, int], share: float) -> None:
    assert overlap(Region(*region, evidence=1.0), FINDING, (HEIGHT, WIDTH)) == pytest.approx(share, abs=0.05)


def test_first_region_is_held_against_the_box_it_covers_best() -> None:
    evidence = np.zeros((HEIGHT, WIDTH), np.float32)
    evidence[ROWS, COLUMNS] = 1
    assert play(Cam(evidence), [Box(0.0, 0.85, 0.1, 0.1), FINDING]).overlap > 0.9


def test_random_points_are_near_as_often_as_pixels_are() -> None:
    random = np.random.default_rng(0)
    points = zip(random.integers(HEIGHT, size=400), random.integers(WIDTH, size=400), strict=True)
    rounds = [play(peaked(row, column), [FINDING]) for row, column in points]
    chance = rounds[0].near_by_chance
    assert np.mean([each.near for each in rounds]) == pytest.approx(chance, abs=4 * np.sqrt(chance / 400))


def test_nearest_of_several_boxes_counts() -> None:
    assert play(peaked(400, 10), [FINDING, Box(0.0, 0.85, 0.1, 0.1)])[0] == 1
