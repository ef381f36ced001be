"""Computes the learning rate from the progress of the run, so that there is no state to save."""

import math
from collections.abc import Sequence

from training.options import TrainOptions

WARM_UP = 0.3
"""Share of a one-cycle run in which the rate rises (Smith and Topin 2017, arXiv 1708.07120)."""
START_DIVISOR = 25
"""Ratio of the peak rate to the rate of the first step of a one-cycle run."""
END_DIVISOR = 250_000
"""Ratio of the peak rate to the rate of the last step of a one-cycle run."""
PLATEAU_PATIENCE = 2
"""Number of epochs without a lower validation loss before the rate is reduced."""
PLATEAU_FACTOR = 0.1
"""Factor by which the rate is multiplied at a plateau."""
PLATEAU_THRESHOLD = 1e-4
"""Minimum relative decrease of the loss that counts as lower."""


def learning_rate(options: TrainOptions, done: float, validation_losses: Sequence[float]) -> float:
    """Return the learning rate that the schedule gives the next step.

    Args:
        done: finished share of all steps of the run, from 0 to 1.
        validation_losses: the loss of each finished epoch.
    """
    if options.schedule == "one-cycle":
        return options.learning_rate * _one_cycle(done)
    if options.schedule == "plateau":
        return options.learning_rate * PLATEAU_FACTOR ** plateaus(validation_losses)
    return options.learning_rate


def plateaus(losses: Sequence[float]) -> int:
    """Count the schedule's plateaus: how often the losses had no new minimum for over `PLATEAU_PATIENCE` epochs."""
    best, waited, count = math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - PLATEAU_THRESHOLD):
            best, waited = loss, 0
            continue
        waited += 1
        if waited > PLATEAU_PATIENCE:
            count, waited = count + 1, 0
    return count


def _one_cycle(done: float) -> float:
    if done < WARM_UP:
        return _cosine(1 / START_DIVISOR, 1.0, done / WARM_UP)
    return _cosine(1.0, 1 / END_DIVISOR, (done - WARM_UP) / (1 - WARM_UP))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
