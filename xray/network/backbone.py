"""The architectures that the network can be built on, and what each must offer.

To add one, write a module with a class that has the members of `Backbone`, and enter it in `BACKBONES`. Training,
checkpoints, all engines but the fused one, and the test of `pool(CAM) + bias == logit` then know it by its name.

Legend: B batch, S canvas side, C channels of the last feature map.
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from xray.errors import ArtifactError
from xray.network.densenet import LAYERS, DenseNet
from xray.network.efficientnet import EfficientNet
from xray.network.resnet import ResNet


class Backbone(Protocol):
    """A convolutional network without its pooling and its classifier."""

    @property
    def channels(self) -> int:
        """Channels C of the last feature map."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Canvas pixels per cell of the last feature map that the layers can be built with; the usual one first."""

    @property
    def stem_length(self) -> int:
        """How many of the first layers form the stem, which GPUs compute in float16 where the rest is in bfloat16."""

    def build(self, stride: int) -> nn.Sequential:
        """Layers with fresh weights, from (B, 3, S, S) to the last feature map (B, C, S / stride, S / stride).

        The map is the one after the last activation: the classifier, applied to each of its cells, is the CAM.
        """

    def imagenet_weights(self) -> Mapping[str, Tensor]:
        """The state dictionary of `build`'s layers after training on ImageNet; any stride takes it.

        Raises:
            ArtifactError: the weights are published nowhere or cannot be downloaded.
        """


BACKBONES: dict[str, Backbone] = {
    **{name: DenseNet(name) for name in LAYERS},
    "resnet50": ResNet("resnet50"),
    "efficientnet_b0": EfficientNet("efficientnet_b0"),
}
"""Every architecture by its name in manifests and on the command line."""


def find_backbone(architecture: str) -> Backbone:
    """The registered backbone of that name.

    Raises:
        ArtifactError: there is none; the message lists the known names.
    """
    if architecture not in BACKBONES:
        raise ArtifactError(f"{architecture!r} is not a known architecture; choose one of {', '.join(BACKBONES)}.")
    return BACKBONES[architecture]


def build_features(architecture: str, stride: int) -> nn.Sequential:
    """The feature layers of an architecture, from (B, 3, S, S) to (B, C, S / stride, S / stride), with fresh weights.

    Raises:
        ArtifactError: the architecture is unknown or has no map of that stride.
    """
    backbone = find_backbone(architecture)
    if stride not in backbone.strides:
        strides = " or ".join(map(str, backbone.strides))
        raise ArtifactError(f"{architecture} has no map of stride {stride}; set the stride to {strides}.")
    return backbone.build(stride)
