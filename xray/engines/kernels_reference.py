"""The two fused steps of the restructured DenseNet, defined in plain torch: the reference for the Triton kernels.

An eager DenseNet reads and writes every map once for each batch norm, ReLU, concatenation and convolution. A fused
step reads its map once. `triton_kernels` implements the same formulas on a GPU.

Legend: B batch, h, w cells of a map, P = B h w pixels of a batch, C input channels, K output channels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Affine:
    """A batch norm in evaluation mode, as the kernels and their reference take it.

    It is `x * scale_C + shift_C`, both float32.
    """

    scale_C: Tensor
    shift_C: Tensor


@dataclass(frozen=True)
class Steps:
    """One implementation of the DenseNet's two fused kernels: the reference in plain torch, or Triton's.

    Attributes:
        bottleneck: `(x_PC, norm, weight_CK, bias_K)` to (P, K): ReLU(ReLU(norm(x)) @ weight + bias). The stride of x's
            rows may be larger than C, as in a buffer that later layers fill. Sums are in float32; both ReLUs are
            rounded to the weight's type.
        shrink: `(x_BhwC, norm)` to (B, h // 2, w // 2, C): the mean over 2 x 2 cells of ReLU(norm(x)), in x's type; an
            odd last row or column is left out.
    """

    bottleneck: Callable[[Tensor, Affine, Tensor, Tensor], Tensor]
    shrink: Callable[[Tensor, Affine], Tensor]


def activate(x: Tensor, norm: Affine) -> Tensor:
    """Return ReLU(norm(x)) in float32, channels last: the reference for the start of both fused steps."""
    return torch.relu(x.float() * norm.scale_C + norm.shift_C)


def bottleneck(x_PC: Tensor, norm: Affine, weight_CK: Tensor, bias_K: Tensor) -> Tensor:
    """Compute `Steps.bottleneck` in plain torch: (P, C) to (P, K)."""
    # Products of two 16-bit numbers are exact in float32, as in a tensor core.
    active_PC = activate(x_PC, norm).to(weight_CK.dtype).float()
    return torch.relu(active_PC @ weight_CK.float() + bias_K).to(weight_CK.dtype)


def shrink(x_BhwC: Tensor, norm: Affine) -> Tensor:
    """Compute `Steps.shrink` in plain torch: (B, h, w, C) to (B, h // 2, w // 2, C)."""
    pooled_BChw = F.avg_pool2d(activate(x_BhwC, norm).permute(0, 3, 1, 2), 2)
    return pooled_BChw.permute(0, 2, 3, 1).to(x_BhwC.dtype)


TORCH_STEPS = Steps(bottleneck, shrink)
