"""A trained DenseNet, restructured to read and write less memory, which computes the same function faster on a GPU.

The maps of a block share one buffer, in which each layer writes its channels after the earlier ones, so that nothing
is concatenated. A layer is one fused step and a 3 x 3 convolution. A batch norm after a convolution is folded into it;
a batch norm before a convolution is applied while the map is read.

Legend: B batch, S canvas side, h, w cells of a map, P = B h w, C channels, K channels of a bottleneck, G channels that
a layer adds.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xray.engines.kernels_reference import TORCH_STEPS, Affine, Steps, activate
from xray.network.model import ModelOutput, XrayNetwork

STEM_TYPES = {torch.bfloat16: torch.float16}
"""Type of the first convolution, by the type of the features, if they differ.

The range of its input and output is known, and float16 rounds them eight times finer than bfloat16 in the same memory:
with float16 the starter checkpoint's logits are off by at most 0.005, with bfloat16 by 0.016.
"""


@dataclass(frozen=True)
class _Layer:
    norm: Affine
    weight_CK: Tensor
    bias_K: Tensor
    weight_GK33: Tensor
    dilation: int


@dataclass(frozen=True)
class _Transition:
    norm: Affine
    weight_CK: Tensor
    halves: bool


class FusedDenseNet:
    """A trained DenseNet (Huang et al. 2017, arXiv 1608.06993), restructured for fast inference on a GPU.

    Its memory layout follows Pleiss et al. 2017, arXiv 1707.06990.

    The features are in `dtype`, with batch norms and sums in float32; the head is the model's own, in float32.
    """

    def __init__(self, model: XrayNetwork, dtype: torch.dtype, steps: Steps = TORCH_STEPS) -> None:
        """Fold copies of the model's weights, on its device; the model is not changed.

        Args:
            model: a network with a DenseNet backbone.
            dtype: type of the features.
        """
        features: Any = model.features  # mypy does not know the names of the layers
        self._model, self._steps = model, steps
        with torch.no_grad():
            self._weight_C177, self._bias_C11 = fold_stem(features, STEM_TYPES.get(dtype, dtype))
            self._blocks = [
                [_fold_layer(layer, dtype) for layer in part.values()] for part in _parts(features, "denseblock")
            ]
            self._transitions = [
                _Transition(affine(part.norm), _matrix(part.conv.weight, dtype), isinstance(part.pool, nn.AvgPool2d))
                for part in _parts(features, "transition")
            ]
            self._last = affine(features.norm5)

    @torch.inference_mode()
    def __call__(self, pixels_B1SS: Tensor) -> ModelOutput:
        """Map uint8 (B, 1, S, S) on the model's device to a `ModelOutput` of B rows there."""
        buffer_BhwC = self._enter(pixels_B1SS)
        self._run_block(self._blocks[0], buffer_BhwC)
        for transition, block in zip(self._transitions, self._blocks[1:], strict=True):
            # Averaging cells and mixing channels commute; averaging first leaves a quarter of the cells to mix.
            step = self._steps.shrink if transition.halves else activate
            active_BhwC = step(buffer_BhwC, transition.norm).to(buffer_BhwC.dtype)
            buffer_BhwC = _buffer(block, *active_BhwC.shape[:3])
            entry_PC = buffer_BhwC.flatten(0, 2)[:, : transition.weight_CK.shape[1]]
            torch.mm(active_BhwC.flatten(0, 2), transition.weight_CK, out=entry_PC)
            self._run_block(block, buffer_BhwC)
        return self._model.forward_head(activate(buffer_BhwC, self._last).permute(0, 3, 1, 2))

    def _enter(self, pixels_B1SS: Tensor) -> Tensor:
        """Normalize, convolve and pool into the first channels of the first block's buffer."""
        gray_B1SS = self._model.normalize(pixels_B1SS).to(self._weight_C177.dtype)
        convolved_BChw = F.conv2d(_as_channels_last(gray_B1SS), self._weight_C177, stride=2, padding=3)
        pooled_BChw = F.max_pool2d(convolved_BChw, kernel_size=3, stride=2, padding=1)
        batch, channels, height, width = pooled_BChw.shape
        buffer_BhwC = _buffer(self._blocks[0], batch, height, width)
        entry_BChw = buffer_BhwC[..., :channels].permute(0, 3, 1, 2)
        # Bias and ReLU preserve the order of numbers, so they may follow the max pooling, on a quarter of the map.
        torch.add(pooled_BChw, self._bias_C11, out=entry_BChw).relu_()
        return buffer_BhwC

    def _run_block(self, layers: list[_Layer], buffer_BhwC: Tensor) -> None:
        """Fill the channels of the buffer (B, h, w, C) that follow the first layer's input."""
        batch, height, width, _ = buffer_BhwC.shape
        rows_PC = buffer_BhwC.flatten(0, 2)
        for layer in layers:
            known = len(layer.norm.scale_C)
            middle_PK = self._steps.bottleneck(rows_PC[:, :known], layer.norm, layer.weight_CK, layer.bias_K)
            middle_BKhw = middle_PK.view(batch, height, width, -1).permute(0, 3, 1, 2)
            new_BGhw = F.conv2d(middle_BKhw, layer.weight_GK33, padding=layer.dilation, dilation=layer.dilation)
            buffer_BhwC[..., known : known + new_BGhw.shape[1]] = new_BGhw.permute(0, 2, 3, 1)


def affine(norm: nn.BatchNorm2d) -> Affine:
    """Return one of the DenseNet's batch norms in evaluation mode as one multiplication and addition per channel."""
    scale_C = norm.weight / torch.sqrt(norm.get_buffer("running_var") + norm.eps)
    return Affine(scale_C, norm.bias - norm.get_buffer("running_mean") * scale_C)


def fold_stem(features: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Fold the fused DenseNet's first layers to one input channel: weights (C, 1, 7, 7), bias (C, 1, 1).

    These are its first convolution and the batch norm after it. The three input channels are equal, so the weights are
    summed over them. The normalization of gray levels is not folded in: the border is padded with zeros after
    normalization, and no gray level normalizes to exactly 0.
    """
    norm = affine(features.norm0)
    weight_C177 = features.conv0.weight.sum(1, keepdim=True) * norm.scale_C[:, None, None, None]
    return _as_channels_last(weight_C177.to(dtype)), norm.shift_C[:, None, None]


def _fold_layer(layer: Any, dtype: torch.dtype) -> _Layer:
    inner = affine(layer.norm2)
    return _Layer(
        norm=affine(layer.norm1),
        weight_CK=_matrix(layer.conv1.weight * inner.scale_C[:, None, None, None], dtype),
        bias_K=inner.shift_C,
        weight_GK33=layer.conv2.weight.to(dtype).contiguous(memory_format=torch.channels_last),
        dilation=layer.conv2.dilation[0],
    )


def _parts(features: Any, kind: str) -> list[Any]:
    return [part for name, part in features.named_children() if name.startswith(kind)]


def _matrix(weight_KC11: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a 1 x 1 convolution's weights as (C, K), contiguous."""
    return weight_KC11[:, :, 0, 0].T.to(dtype).contiguous()


def _as_channels_last(x_B1hw: Tensor) -> Tensor:
    """Return a contiguous one-channel map with the strides of channels last, which torch would not set by itself."""
    return x_B1hw.flatten(0, 1).unsqueeze(-1).permute(0, 3, 1, 2)


def _buffer(layers: list[_Layer], batch: int, height: int, width: int) -> Tensor:
    """Allocate memory (B, h, w, C) for a block's input and the channels that its layers add."""
    channels = len(layers[-1].norm.scale_C) + layers[-1].weight_GK33.shape[0]
    return layers[-1].weight_GK33.new_empty((batch, height, width, channels))
