"""What a batch of bags costs: of each study, of each of its radiographs, and of where the map looks.

All is computed from logits, so that it never overflows.

Legend: B studies, N radiographs, h, w cells of the map.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data import Bags
from training.options import TrainOptions
from xray.model import ModelOutput


def total_loss(output: ModelOutput, bags: Bags, options: TrainOptions) -> Tensor:
    """The terms that the options ask for, summed; a scalar."""
    loss = study_loss(output.logits_B, bags)
    if options.radiograph_loss:
        loss = loss + options.radiograph_loss * radiograph_loss(output.logits_B, bags)
    if options.box_loss:
        loss = loss + options.box_loss * box_loss(output.cams_Bhw, bags)
    return loss


def study_loss(logits_N: Tensor, bags: Bags) -> Tensor:
    """Binary cross-entropy of each study's probability, weighted; its mean over the studies.

    The study's probability is the mean of its radiographs', as when serving; the logarithms of it and of its
    complement are log-sum-exps over the radiographs.
    """
    log_abnormal_B, log_normal_B = log_probabilities(logits_N, bags.views)
    losses_B = -torch.where(bags.targets_B > 0.5, log_abnormal_B, log_normal_B)
    return (losses_B * bags.weights_B).mean()


def radiograph_loss(logits_N: Tensor, bags: Bags) -> Tensor:
    """Binary cross-entropy of each radiograph against its study's target; the mean over studies of their mean."""
    views = torch.tensor(bags.views, device=logits_N.device)
    targets_N, shares_N = bags.targets_B.repeat_interleave(views), (bags.weights_B / views).repeat_interleave(views)
    losses_N = F.binary_cross_entropy_with_logits(logits_N, targets_N, reduction="none")
    return (losses_N * shares_N).sum() / len(bags.views)


def box_loss(cams_Nhw: Tensor, bags: Bags) -> Tensor:
    """How surprising it is that the finding lies where its boxes are; the sum over annotated radiographs by N.

    Where a map's cells are log odds, up to a constant, their softmax says where a finding lies, given that there is
    one; the loss is the negative log of what it gives to the cells of the boxes. Radiographs without a box cost
    nothing.
    """
    annotated_N = bags.inside_Nhw.flatten(1).any(1)
    cams_Nc, inside_Nc = cams_Nhw[annotated_N].flatten(1), bags.inside_Nhw[annotated_N].flatten(1)
    log_shares_N = cams_Nc.masked_fill(~inside_Nc, -torch.inf).logsumexp(1) - cams_Nc.logsumexp(1)
    return -log_shares_N.sum() / len(annotated_N)


def log_probabilities(logits_N: Tensor, views: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Log of the mean probability of each study, and log of one minus it; (B,) each."""
    return _log_mean(F.logsigmoid(logits_N), views), _log_mean(F.logsigmoid(-logits_N), views)


def _log_mean(logs_N: Tensor, views: tuple[int, ...]) -> Tensor:
    sums_B = torch.stack([logs.logsumexp(0) for logs in torch.split(logs_N, list(views))])
    return sums_B - torch.tensor(views, device=logs_N.device).log()
