"""EfficientNet's feature layers (Tan and Le 2019, arXiv 1905.11946), from torchvision."""

from dataclasses import dataclass

from torch import Tensor, nn

from xray.network.backbones.pretrained import load_pretrained


@dataclass(frozen=True)
class EfficientNet:
    """An EfficientNet; its last convolution ends in a SiLU. torchvision offers no dilation, so its stride is fixed.

    Attributes:
        name: torchvision's name.
        channels: number of channels of the last feature map.
    """

    name: str
    channels: int = 1280
    strides: tuple[int, ...] = (32,)
    stem_length: int = 1

    def build(self, stride: int = 32) -> nn.Sequential:
        """Build EfficientNet's feature layers with fresh weights: (B, 3, S, S) to (B, C, S / 32, S / 32).

        Stochastic depth is off, because it draws from torch's global generator, which a resumed run does not restore.
        """
        import torchvision  # imported here because it takes seconds and serving a DenseNet does not need it

        network = torchvision.models.get_model(self.name, weights=None, stochastic_depth_prob=0.0)
        features: nn.Sequential = network.features
        return features

    def imagenet_weights(self) -> dict[str, Tensor]:
        """Return EfficientNet's ImageNet weights for `build`. Raises ArtifactError if they cannot be downloaded."""
        return load_pretrained(self.name).get_submodule("features").state_dict()
