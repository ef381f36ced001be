"""ResNet's feature layers (He et al. 2016, arXiv 1512.03385), from torchvision."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from xray.network.backbones.pretrained import load_pretrained

PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
"""torchvision's names of the layers before pooling and classifier, in the order of the forward pass."""


@dataclass(frozen=True)
class ResNet:
    """A ResNet with bottleneck blocks; the last block ends in a ReLU.

    Attributes:
        name: torchvision's name.
        channels: number of channels of the last feature map.
    """

    name: str
    channels: int = 2048
    strides: tuple[int, ...] = (32, 16)
    stem_length: int = 4

    def build(self, stride: int = 32) -> nn.Sequential:
        """Build ResNet's feature layers with fresh weights: (B, 3, S, S) to (B, C, S / stride, S / stride).

        At stride 16, the last block does not stride, and its 3 x 3 convolutions have dilation 2, so that weights
        trained at 32 still fit (Yu et al. 2017, arXiv 1705.09914).
        """
        import torchvision  # imported here because it takes seconds and serving a DenseNet does not need it

        dilated = [False, False, stride == 16]
        return _feature_layers(
            torchvision.models.get_model(self.name, weights=None, replace_stride_with_dilation=dilated)
        )

    def imagenet_weights(self) -> dict[str, Tensor]:
        """Return ResNet's ImageNet weights for `build`. Raises ArtifactError if they cannot be downloaded."""
        return _feature_layers(load_pretrained(self.name)).state_dict()


def _feature_layers(network: nn.Module) -> nn.Sequential:
    """Return the layers of torchvision's network up to its last feature map."""
    return nn.Sequential(OrderedDict((part, network.get_submodule(part)) for part in PARTS))
