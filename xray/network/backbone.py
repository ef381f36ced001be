"""The architectures on which the network can be built, and their interface.

To add one, write a module in `backbones` with a class that has the members of `Backbone`, and add it to `BACKBONES`.
Training, checkpoints, all engines except the fused one, and the test of `pool(CAM) + bias == logit` then accept its
name.

Legend: B batch, S canvas side, C channels of the last feature map.
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from xray.errors import ArtifactError
from xray.network.backbones.densenet import LAYERS, DenseNet
from xray.network.backbones.efficientnet import EfficientNet
from xray.network.backbones.efficientnet_lite import STAGES, EfficientNetLite
from xray.network.backbones.resnet import ResNet


class Backbone(Protocol):
    """The interface of every architecture: a convolutional network without pooling and classifier."""

    @property
    def channels(self) -> int:
        """Channels C of the backbone's last feature map."""

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides that a backbone supports, in canvas pixels per cell of its last map; the usual one first."""

    @property
    def stem_length(self) -> int:
        """Number of a backbone's first layers that form its stem, in float16 on GPUs if the rest is in bfloat16."""

    def build(self, stride: int) -> nn.Sequential:
        """Build a backbone's layers with fresh weights: (B, 3, S, S) to the last map (B, C, S / stride, S / stride).

        The map is the one after the last activation: the classifier, applied to each of its cells, is the CAM.
        """

    def imagenet_weights(self) -> Mapping[str, Tensor]:
        """Return the backbone's state dictionary after training on ImageNet, for `build` at any stride.

        Raises:
            ArtifactError: the weights are not published or cannot be downloaded.
        """


BACKBONES: dict[str, Backbone] = {
    **{name: DenseNet(name) for name in LAYERS},
    "resnet50": ResNet("resnet50"),
    "efficientnet_b0": EfficientNet("efficientnet_b0"),
    **{name: EfficientNetLite(name) for name in STAGES},
}
"""All architectures, by their names in manifests and on the command line."""


def find_backbone(architecture: str) -> Backbone:
    """Return the registered backbone with a name.

    Raises:
        ArtifactError: the name is unknown; the message lists the known ones.
    """
    if architecture not in BACKBONES:
        raise ArtifactError(f"{architecture!r} is not a known architecture; choose one of {', '.join(BACKBONES)}.")
    return BACKBONES[architecture]


def build_features(architecture: str, stride: int) -> nn.Sequential:
    """Build a registered backbone's layers with fresh weights: (B, 3, S, S) to (B, C, S / stride, S / stride).

    Raises:
        ArtifactError: the architecture is unknown or has no map of that stride.
    """
    backbone = find_backbone(architecture)
    if stride not in backbone.strides:
        strides = " or ".join(map(str, backbone.strides))
        raise ArtifactError(f"{architecture} has no map of stride {stride}; set the stride to {strides}.")
    return backbone.build(stride)
