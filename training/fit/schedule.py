"""The learning rate as a function of where the run stands: nothing to save, nothing to restore."""

import math
from collections.abc import Sequence

from training.options import TrainOptions

WARM_UP = 0.3
"""Share of a one-cycle run in which the rate rises (Smith and Topin 2017, arXiv 1708.07120)."""
START_DIVISOR, END_DIVISOR = 25, 250_000
"""What the peak is divided by at the first and at the last step of a one-cycle run."""
PATIENCE = 2
"""Epochs without a lower validation loss that a plateau forgives."""
PLATEAU_FACTOR = 0.1
PLATEAU_THRESHOLD = 1e-4
"""Relative improvement that counts as lower."""


def learning_rate(options: TrainOptions, done: float, validation_losses: Sequence[float]) -> float:
    """The rate of the next step.

    Args:
        done: share of all steps of the run that lie behind, from 0 to 1.
        validation_losses: one for each finished epoch.
    """
    if options.schedule == "one-cycle":
        return options.learning_rate * _one_cycle(done)
    if options.schedule == "plateau":
        return options.learning_rate * PLATEAU_FACTOR ** plateaus(validation_losses)
    return options.learning_rate


def plateaus(losses: Sequence[float]) -> int:
    """How often a sequence of losses stayed for more than `PATIENCE` epochs without a new minimum."""
    best, waited, count = math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - PLATEAU_THRESHOLD):
            best, waited = loss, 0
            continue
        waited += 1
        if waited > PATIENCE:
            count, waited = count + 1, 0
    return count


def _one_cycle(done: float) -> float:
    if done < WARM_UP:
        return _cosine(1 / START_DIVISOR, 1.0, done / WARM_UP)
    return _cosine(1.0, 1 / END_DIVISOR, (done - WARM_UP) / (1 - WARM_UP))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
