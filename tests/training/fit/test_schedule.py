"""The learning rate rises, falls and waits where it should."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.fit.schedule import PLATEAU_PATIENCE, learning_rate
from training.options import TrainOptions

PEAK = 1e-3
OPTIONS = TrainOptions(Path("data"), Path("out"), learning_rate=PEAK)
ONE_CYCLE, PLATEAU, CONSTANT = (replace(OPTIONS, schedule=name) for name in ("one-cycle", "plateau", "constant"))


def test_one_cycle_rises_to_its_peak_at_30_percent_and_falls_from_there() -> None:
    shares = np.linspace(0, 1, 101)
    rates = np.array([learning_rate(ONE_CYCLE, share, []) for share in shares])
    assert rates.argmax() == 30
    assert rates[30] == pytest.approx(PEAK)
    assert (np.diff(rates[:31]) > 0).all()
    assert (np.diff(rates[30:]) < 0).all()


def test_one_cycle_starts_at_a_twentyfifth_and_ends_near_zero() -> None:
    assert learning_rate(ONE_CYCLE, 0, []) == pytest.approx(PEAK / 25)
    assert 0 < learning_rate(ONE_CYCLE, 1, []) < PEAK / 100_000


def test_plateau_waits_for_its_patience_and_divides_by_ten_one_epoch_later() -> None:
    flat = [0.7] + [0.7] * (PLATEAU_PATIENCE + 1)
    assert learning_rate(PLATEAU, 0.5, flat[:-1]) == PEAK
    assert learning_rate(PLATEAU, 0.5, flat) == pytest.approx(PEAK / 10)


def test_plateau_waits_anew_after_an_improvement() -> None:
    losses = [0.7] + [0.8] * PLATEAU_PATIENCE + [0.6] + [0.6] * PLATEAU_PATIENCE
    assert learning_rate(PLATEAU, 0.5, losses) == PEAK
    assert learning_rate(PLATEAU, 0.5, [*losses, 0.6]) == pytest.approx(PEAK / 10)


@pytest.mark.parametrize("seed", range(5))
def test_plateau_is_that_of_torch(seed: int) -> None:
    losses = (0.7 * np.exp(np.random.default_rng(seed).normal(-0.01, 0.2, 40).cumsum() / 3)).tolist()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    of_torch = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=PLATEAU_PATIENCE, eps=0)
    for epoch in range(len(losses)):
        of_torch.step(losses[epoch])
        assert learning_rate(PLATEAU, 0, losses[: epoch + 1]) == pytest.approx(of_torch.get_last_lr()[0])
    assert of_torch.get_last_lr()[0] < PEAK


def test_constant_never_changes() -> None:
    assert {learning_rate(CONSTANT, share, [0.7] * 20) for share in (0, 0.3, 1)} == {PEAK}
