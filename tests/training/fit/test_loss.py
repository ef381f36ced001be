"""The losses are what their definitions say, at any size of logit."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from training.dataset.loader import Bags
from training.fit.loss import box_loss, radiograph_loss, study_logits, study_loss
from xray.network.decision import StudyPooling, pool_views
from xray.network.model import ModelOutput

VIEWS = (1, 3, 2, 4)
TARGETS = (1.0, 0.0, 1.0, 0.0)
WEIGHTS = (0.5, 1.5, 1.0, 2.0)


def bags(views: tuple[int, ...], targets: tuple[float, ...], weights: tuple[float, ...]) -> Bags:
    """A batch of which the loss needs no pixels."""
    pixels, inside = torch.zeros(sum(views), 1, 1, 1), torch.zeros(sum(views), 1, 1, dtype=torch.bool)
    return Bags(pixels, inside, views, torch.tensor(targets), torch.tensor(weights))


def output(logits: torch.Tensor, attentions: torch.Tensor | None = None) -> ModelOutput:
    """An output of which the study's logit needs neither embedding nor map."""
    nothing = torch.zeros((len(logits), 1))
    return ModelOutput(
        logits, nothing, nothing[..., None], torch.zeros(len(logits)) if attentions is None else attentions
    )


def mean_loss(logits: torch.Tensor, batch: Bags) -> torch.Tensor:
    return study_loss(study_logits(output(logits), batch.views, "mean"), batch)


@pytest.mark.parametrize("seed", range(5))
def test_loss_equals_the_definition_in_float64(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, sum(VIEWS)).astype(np.float32)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = 0.0
    for study in range(len(VIEWS)):
        start = sum(VIEWS[:study])
        mean = probabilities[start : start + VIEWS[study]].mean()
        expected -= WEIGHTS[study] * np.log(mean if TARGETS[study] else 1 - mean) / len(VIEWS)
    assert float(mean_loss(torch.from_numpy(logits), bags(VIEWS, TARGETS, WEIGHTS))) == pytest.approx(expected, 1e-5)


def test_studies_of_one_view_have_the_cross_entropy_of_their_logits() -> None:
    logits, targets, weights = torch.tensor([-2.0, 0.3, 4.0]), (1.0, 0.0, 1.0), (1.0, 0.5, 1.5)
    expected = F.binary_cross_entropy_with_logits(logits, torch.tensor(targets), torch.tensor(weights))
    torch.testing.assert_close(mean_loss(logits, bags((1, 1, 1), targets, weights)), expected)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_certainty_in_the_wrong_costs_its_logit_and_keeps_a_finite_gradient(sign: float) -> None:
    logits = torch.full((5,), 100.0 * sign, requires_grad=True)
    wrong = 0.0 if sign > 0 else 1.0
    loss = mean_loss(logits, bags((2, 3), (wrong, wrong), (1.0, 1.0)))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(100)
    assert logits.grad is not None
    # Both studies count one half; the views of a study share its half equally.
    torch.testing.assert_close(logits.grad, sign * torch.tensor([1 / 4, 1 / 4, 1 / 6, 1 / 6, 1 / 6]))


def test_views_that_contradict_each_other_completely_come_to_one_half() -> None:
    logits = torch.tensor([100.0, -100.0], requires_grad=True)
    loss = mean_loss(logits, bags((2,), (1.0,), (1.0,)))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(np.log(2))
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("pooling", ["mean", "lse", "attention"])
def test_a_study_is_pooled_in_training_as_when_serving(pooling: StudyPooling) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, attentions = (3 * torch.randn(sum(VIEWS), generator=generator) for _ in range(2))
    studies = zip(torch.split(logits, list(VIEWS)), torch.split(attentions, list(VIEWS)), strict=True)
    served = [pool_views(study.double().numpy(), each.double().numpy(), pooling)[0] for study, each in studies]
    assert study_logits(output(logits, attentions), VIEWS, pooling).tolist() == pytest.approx(served, abs=1e-5)


def test_each_radiograph_of_a_study_has_its_share_of_the_studys_weight() -> None:
    logits = torch.tensor([-2.0, 0.3, 4.0])
    batch = bags((2, 1), (1.0, 0.0), (1.0, 0.5))
    each = F.binary_cross_entropy_with_logits(logits, torch.tensor([1.0, 1.0, 0.0]), reduction="none")
    expected = ((each[0] + each[1]) / 2 + each[2] / 2) / 2
    torch.testing.assert_close(radiograph_loss(logits, batch), expected)


def test_a_map_costs_the_surprise_at_its_boxes_and_nothing_where_there_is_none() -> None:
    cams = torch.randn((2, 3, 3), generator=torch.Generator().manual_seed(0))
    inside = torch.zeros((2, 3, 3), dtype=torch.bool)
    inside[0, 1, :2] = True
    batch = Bags(torch.zeros(2, 1, 1, 1), inside, (2,), torch.ones(1), torch.ones(1))
    share = cams[0].flatten().softmax(0)[3:5].sum()
    torch.testing.assert_close(box_loss(cams, batch), -share.log() / 2)
    assert float(box_loss(cams, bags((1, 1), (0.0, 0.0), (1.0, 1.0)))) == 0


def test_boxes_pull_the_map_towards_them() -> None:
    cams = torch.zeros((1, 3, 3), requires_grad=True)
    inside = torch.zeros((1, 3, 3), dtype=torch.bool)
    inside[0, 1, 1] = True
    box_loss(cams, Bags(torch.zeros(1, 1, 1, 1), inside, (1,), torch.ones(1), torch.ones(1))).backward()  # type: ignore[no-untyped-call]
    assert cams.grad is not None
    assert (cams.grad < 0).tolist() == inside.tolist()
