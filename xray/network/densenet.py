"""DenseNet's feature layers (Huang et al. 2017, arXiv 1608.06993), with torchvision's names for their weights.

Written here because importing torchvision takes a service longer than all of its own code.

Legend: B batch, C channels, h, w cells of a map.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Architecture = Literal["densenet121", "densenet169", "densenet201"]
MapStride = Literal[16, 32]
"""Canvas pixels per cell of the last map."""
GROWTH = 32
"""Channels that a layer adds."""
BOTTLENECK = 4 * GROWTH
"""Channels between a layer's two convolutions."""
STEM_CHANNELS = 64
LAYERS: dict[Architecture, tuple[int, ...]] = {
    "densenet121": (6, 12, 24, 16),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
}
"""Of each of the four blocks."""


class DenseLayer(nn.Module):
    """BN, ReLU, 1 x 1 convolution, BN, ReLU, 3 x 3 convolution, on everything that came before in the block."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, BOTTLENECK, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(BOTTLENECK), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(BOTTLENECK, GROWTH, 3, padding=dilation, dilation=dilation, bias=False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Earlier maps (B, C, h, w) of the block to (B, GROWTH, h, w)."""
        middle = self.conv1(self.relu1(self.norm1(torch.cat(maps, 1))))
        new: Tensor = self.conv2(self.relu2(self.norm2(middle)))
        return new


class DenseBlock(nn.ModuleDict):
    """Layers that each see the block's input and the maps of all layers before."""

    def __init__(self, layers: int, channels: int, dilation: int = 1) -> None:
        super().__init__({f"denselayer{i + 1}": DenseLayer(channels + i * GROWTH, dilation) for i in range(layers)})

    def forward(self, entry_BChw: Tensor) -> Tensor:
        maps = [entry_BChw]
        for layer in self.values():
            maps.append(layer(maps))
        return torch.cat(maps, 1)


def transition(channels: int, pool: nn.Module) -> nn.Sequential:
    """Half the channels, on the cells that the pooling leaves."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
            pool=pool,
        )
    )


@dataclass(frozen=True)
class Features:
    """The layers, from (B, 3, S, S) to the last batch norm's (B, channels, S / stride, S / stride), before its ReLU."""

    layers: nn.Sequential
    channels: int


def dense_features(architecture: Architecture, stride: MapStride = 32) -> Features:
    """Layers with fresh weights: convolutions after He et al. 2015, arXiv 1502.01852.

    Args:
        stride: at 16 the last transition keeps its cells, and the last block's 3 x 3 convolutions reach twice as far:
            weights trained at 32 see what they know (Yu et al. 2017, arXiv 1705.09914).
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv0=nn.Conv2d(3, STEM_CHANNELS, 7, stride=2, padding=3, bias=False),
        norm0=nn.BatchNorm2d(STEM_CHANNELS),
        relu0=nn.ReLU(inplace=True),
        pool0=nn.MaxPool2d(3, stride=2, padding=1),
    )
    channels, blocks = STEM_CHANNELS, LAYERS[architecture]
    last, fine = len(blocks), stride < 32
    for number, layers in enumerate(blocks, start=1):
        parts[f"denseblock{number}"] = DenseBlock(layers, channels, dilation=2 if fine and number == last else 1)
        channels += layers * GROWTH
        if number < last:
            keeps_cells = fine and number == last - 1
            parts[f"transition{number}"] = transition(channels, nn.Identity() if keeps_cells else nn.AvgPool2d(2))
            channels //= 2
    parts["norm5"] = nn.BatchNorm2d(channels)
    features = nn.Sequential(parts)
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return Features(features, channels)
