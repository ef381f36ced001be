"""DenseNet's feature layers (Huang et al. 2017, arXiv 1608.06993), with torchvision's names for their weights.

They are defined here and not imported from torchvision, because importing torchvision takes longer than importing all
of the service's own code.

Legend: B batch, S canvas side, C channels, h, w cells of a map.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from xray.network.backbones.pretrained import load_pretrained

DenseNetName = Literal["densenet121", "densenet169", "densenet201"]
GROWTH = 32
"""Number of channels that a layer adds: the growth rate k of the paper's ImageNet networks."""
BOTTLENECK = 4 * GROWTH
"""Number of channels between a layer's two convolutions, as in the paper."""
STEM_CHANNELS = 64
"""Number of channels of the first convolution: twice the growth rate, as in the paper."""
LAYERS: dict[DenseNetName, tuple[int, ...]] = {
    "densenet121": (6, 12, 24, 16),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
}
"""Number of layers in each of the four blocks (table 1 of the paper)."""


class DenseLayer(nn.Module):
    """DenseNet's layer, applied to all earlier maps of its block: BN, ReLU, 1 x 1 and BN, ReLU, 3 x 3 convolution."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, BOTTLENECK, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(BOTTLENECK, GROWTH, 3, padding=dilation, dilation=dilation, bias=False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Turn the dense block's earlier maps, each (B, C, h, w), into GROWTH new channels (B, GROWTH, h, w)."""
        middle = self.conv1(self.relu1(self.norm1(torch.cat(maps, 1))))
        new: Tensor = self.conv2(self.relu2(self.norm2(middle)))
        return new


class DenseBlock(nn.ModuleDict):
    """DenseNet's block: layers whose input is the block's input with the maps of all earlier layers."""

    def __init__(self, layers: int, channels: int, dilation: int = 1) -> None:
        super().__init__({f"denselayer{i + 1}": DenseLayer(channels + i * GROWTH, dilation) for i in range(layers)})

    def forward(self, entry_BChw: Tensor) -> Tensor:
        """Append each dense layer's channels: (B, C, h, w) to (B, C + layers * GROWTH, h, w)."""
        maps = [entry_BChw]
        for layer in self.values():
            maps.append(layer(maps))
        return torch.cat(maps, 1)


def transition(channels: int, pool: nn.Module) -> nn.Sequential:
    """Return the layers between two of DenseNet's blocks: (B, C, h, w) to (B, C / 2, h, w), followed by `pool`."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
            pool=pool,
        )
    )


@dataclass(frozen=True)
class DenseNet:
    """One of the three DenseNets; a ReLU follows its last batch norm."""

    name: DenseNetName
    strides: tuple[int, ...] = (32, 16)
    stem_length: int = 4

    @property
    def channels(self) -> int:
        """Channels of DenseNet's last feature map: 1920 for DenseNet-201."""
        channels = STEM_CHANNELS
        for layers in LAYERS[self.name][:-1]:
            channels = (channels + layers * GROWTH) // 2
        return channels + LAYERS[self.name][-1] * GROWTH

    def build(self, stride: int = 32) -> nn.Sequential:
        """Build DenseNet's feature layers with fresh weights: (B, 3, S, S) to (B, C, S / stride, S / stride).

        Convolutions are initialized as in He et al. 2015, arXiv 1502.01852.

        Args:
            stride: at 16, the last transition does not pool, and the last block's 3 x 3 convolutions have dilation 2,
                so that weights trained at 32 still fit (Yu et al. 2017, arXiv 1705.09914).
        """
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, STEM_CHANNELS, 7, stride=2, padding=3, bias=False),
            norm0=nn.BatchNorm2d(STEM_CHANNELS),
            relu0=nn.ReLU(inplace=True),
            pool0=nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels = STEM_CHANNELS
        blocks = LAYERS[self.name]
        last = len(blocks)
        fine = stride < 32
        for number, layers in enumerate(blocks, start=1):
            parts[f"denseblock{number}"] = DenseBlock(layers, channels, dilation=2 if fine and number == last else 1)
            channels += layers * GROWTH
            if number < last:
                keeps_cells = fine and number == last - 1
                parts[f"transition{number}"] = transition(channels, nn.Identity() if keeps_cells else nn.AvgPool2d(2))
                channels //= 2
        parts["norm5"] = nn.BatchNorm2d(channels)
        parts["relu5"] = nn.ReLU(inplace=True)
        features = nn.Sequential(parts)
        for module in features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        return features

    def imagenet_weights(self) -> dict[str, Tensor]:
        """Return DenseNet's ImageNet weights for `build`. Raises ArtifactError if they cannot be downloaded."""
        return load_pretrained(self.name).get_submodule("features").state_dict()
