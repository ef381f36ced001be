"""Binary cross-entropy of a study's mean probability, computed from logits so that it never overflows.

Legend: B studies, N radiographs.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data import Bags


def study_loss(logits_N: Tensor, bags: Bags) -> Tensor:
    """Mean over the batch of each study's weighted cross-entropy; a scalar.

    The study's probability is the mean of its radiographs', as when serving; the logarithms of it and of its
    complement are log-sum-exps over the radiographs.
    """
    log_abnormal_B, log_normal_B = log_probabilities(logits_N, bags.views)
    losses_B = -torch.where(bags.targets_B > 0.5, log_abnormal_B, log_normal_B)
    return (losses_B * bags.weights_B).mean()


def log_probabilities(logits_N: Tensor, views: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Log of the mean probability of each study, and log of one minus it; (B,) each."""
    return _log_mean(F.logsigmoid(logits_N), views), _log_mean(F.logsigmoid(-logits_N), views)


def _log_mean(logs_N: Tensor, views: tuple[int, ...]) -> Tensor:
    sums_B = torch.stack([logs.logsumexp(0) for logs in torch.split(logs_N, list(views))])
    return sums_B - torch.tensor(views, device=logs_N.device).log()
