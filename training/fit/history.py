"""The progress of a run: the result of each epoch, and a plot of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure


@dataclass(frozen=True)
class EpochResult:
    """The result of one finished epoch in a training run's history.

    Attributes:
        learning_rate: learning rate at the end of the epoch.
        training_loss: mean loss over the steps of the epoch.
        validation_loss: the same loss on the validation studies, with classes weighted as training samples them.
        validation_auroc: AUROC over the validation studies.
        threshold: the probability with the largest sensitivity + specificity (Youden 1950).
    """

    epoch: int
    learning_rate: float
    training_loss: float
    validation_loss: float
    validation_auroc: float
    threshold: float


@dataclass(frozen=True)
class Progress:
    """The history of a training run so far: the results of finished epochs, and the steps of the current one.

    Attributes:
        history: one result for each finished epoch.
        step: number of finished steps of the current epoch.
        loss_sum: sum of the losses of these steps.
    """

    history: tuple[EpochResult, ...] = ()
    step: int = 0
    loss_sum: float = 0.0

    @property
    def epoch(self) -> int:
        """The current epoch of the training run, from 0."""
        return len(self.history)

    @property
    def validation_losses(self) -> list[float]:
        """The validation loss of each finished epoch in the training run's history."""
        return [result.validation_loss for result in self.history]

    @property
    def best(self) -> EpochResult:
        """The epoch with the highest validation AUROC in the history; the first one if several are equal."""
        return max(self.history, key=lambda result: result.validation_auroc)

    def after_step(self, loss: float) -> "Progress":
        """Return the training run's progress after one more step with a loss."""
        return Progress(self.history, self.step + 1, self.loss_sum + loss)

    def after_epoch(self, result: EpochResult) -> "Progress":
        """Return the progress at the start of the next epoch, with the finished one in the history."""
        return Progress((*self.history, result))


def draw_history(history: Sequence[EpochResult], file: Path) -> None:
    """Draw a training run's history as a PNG: losses, AUROC and learning rate over the epochs."""
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
