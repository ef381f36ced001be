"""Draws the history of a run."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from training.fit.resume import EpochResult


def draw_history(history: Sequence[EpochResult], file: Path) -> None:
    """Losses, AUROC and learning rate over the epochs of a run, as a PNG."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    losses, areas, rates = figure.subplots(1, 3)
    epochs = [result.epoch + 1 for result in history]
    losses.plot(epochs, [result.training_loss for result in history], label="training")
    losses.plot(epochs, [result.validation_loss for result in history], label="validation")
    losses.legend()
    areas.plot(epochs, [result.validation_auroc for result in history])
    rates.semilogy(epochs, [result.learning_rate for result in history])
    for axes, title in ((losses, "loss"), (areas, "validation AUROC"), (rates, "learning rate")):
        axes.set(title=title, xlabel="epoch")
    figure.savefig(file, format="png")
