"""Computes the training loss of a batch: for its studies, for their radiographs, and for the position of the evidence.

Everything is computed from logits, so that nothing overflows.

Legend: B studies, N radiographs, h, w cells of the map.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.dataset.loader import Bags
from training.options import TrainOptions
from xray.network.decision import StudyPooling
from xray.network.model import ModelOutput


def total_loss(output: ModelOutput, bags: Bags, options: TrainOptions) -> Tensor:
    """Return the training loss of a batch: the sum of the terms that the options select; a scalar."""
    loss = study_loss(study_logits(output, bags.views, options.study_pooling), bags)
    if options.radiograph_loss:
        loss = loss + options.radiograph_loss * radiograph_loss(output.logits_B, bags)
    if options.box_loss:
        loss = loss + options.box_loss * box_loss(output.cams_Bhw, bags)
    return loss


def study_loss(logits_B: Tensor, bags: Bags) -> Tensor:
    """Return the mean over studies of their weighted binary cross-entropy."""
    return F.binary_cross_entropy_with_logits(logits_B, bags.targets_B, bags.weights_B)


def radiograph_loss(logits_N: Tensor, bags: Bags) -> Tensor:
    """Return the mean over studies of the mean binary cross-entropy of their radiographs against the study's target."""
    views = torch.tensor(bags.views, device=logits_N.device)
    targets_N, shares_N = bags.targets_B.repeat_interleave(views), (bags.weights_B / views).repeat_interleave(views)
    losses_N = F.binary_cross_entropy_with_logits(logits_N, targets_N, reduction="none")
    return (losses_N * shares_N).sum() / len(bags.views)


def box_loss(cams_Nhw: Tensor, bags: Bags) -> Tensor:
    """Return the negative log-likelihood of the boxes under the softmax of the map, summed over radiographs, over N.

    The cells of a map are log odds up to a constant, so their softmax is the probability of a finding's position, given
    that there is one. Radiographs without a box have no loss.
    """
    annotated_N = bags.inside_Nhw.flatten(1).any(1)
    cams_Nc, inside_Nc = cams_Nhw[annotated_N].flatten(1), bags.inside_Nhw[annotated_N].flatten(1)
    log_shares_N = cams_Nc.masked_fill(~inside_Nc, -torch.inf).logsumexp(1) - cams_Nc.logsumexp(1)
    return -log_shares_N.sum() / len(annotated_N)


def study_logits(output: ModelOutput, views: tuple[int, ...], pooling: StudyPooling) -> Tensor:
    """Return each study's logit (B,) for its loss, the same as `xray.network.decision.pool_views` in the service."""
    columns = (torch.split(column_N, list(views)) for column_N in (output.logits_B, output.attentions_B))
    studies = zip(*columns, strict=True)
    return torch.stack([_pooled(logits_n, attentions_n, pooling) for logits_n, attentions_n in studies])


def _pooled(logits_n: Tensor, attentions_n: Tensor, pooling: StudyPooling) -> Tensor:
    if pooling == "mean":
        return F.logsigmoid(logits_n).logsumexp(0) - F.logsigmoid(-logits_n).logsumexp(0)
    if pooling == "lse":
        return logits_n.logsumexp(0) - math.log(len(logits_n))
    return attentions_n.softmax(0) @ logits_n
