"""The network: a uint8 batch in, logits, embeddings and CAMs out of one forward pass.

Legend: B batch, S canvas side, C = D channels of the last feature map (1920 for DenseNet-201), h, w its cells.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xray.densenet import Architecture, MapStride, dense_features
from xray.errors import ArtifactError
from xray.preprocess import PreprocessSpec


@dataclass(frozen=True)
class ModelOutput:
    """What one pass says about a batch of radiographs.

    Attributes:
        logits_B: float32, before the sigmoid; positive speaks for abnormal.
        embeddings_BD: float32, the pooled feature map, L2-normalised.
        cams_Bhw: float32, what each cell adds to the logit: `cams_Bhw.mean((1, 2)) + bias == logits_B`.
    """

    logits_B: Tensor
    embeddings_BD: Tensor
    cams_Bhw: Tensor


class XrayDenseNet(nn.Module):
    """DenseNet (Huang et al. 2017, arXiv 1608.06993) with one logit for abnormality.

    Global average pooling and a linear unit commute, so the class activation map (Zhou et al. 2016,
    arXiv 1512.04150) is the linear unit applied to each cell, and its mean is the logit without the bias.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture, spec: PreprocessSpec, map_stride: MapStride = 32) -> None:
        super().__init__()
        features = dense_features(architecture, map_stride)
        self.features = features.layers
        self.classifier = nn.Linear(features.channels, 1)
        # Not persistent: the manifest owns them, the weights file does not.
        self.register_buffer("mean", torch.tensor(255 * spec.mean), persistent=False)
        self.register_buffer("std", torch.tensor(255 * spec.std), persistent=False)

    def forward(self, pixels_B1SS: Tensor) -> ModelOutput:
        """uint8 (B, 1, S, S) to a `ModelOutput` of B rows."""
        return self.forward_head(self.forward_features(pixels_B1SS))

    def forward_features(self, pixels_B1SS: Tensor) -> Tensor:
        """The last feature map (B, C, h, w), after its ReLU."""
        features_BChw = self.features(self.normalise(pixels_B1SS).expand(-1, 3, -1, -1))
        return F.relu(features_BChw, inplace=not self.training)

    def normalise(self, pixels_B1SS: Tensor) -> Tensor:
        """Gray levels in float32 as the first convolution wants them."""
        return (pixels_B1SS.float() - self.mean) / self.std

    def forward_head(self, features_BChw: Tensor) -> ModelOutput:
        """Pool, classify and map, in float32 whatever the features came in."""
        with torch.autocast(features_BChw.device.type, enabled=False):
            features_BChw = features_BChw.float()
            pooled_BC = features_BChw.mean((2, 3))
            weights_C = self.classifier.weight[0]
            return ModelOutput(
                logits_B=self.classifier(pooled_BC).squeeze(1),
                embeddings_BD=F.normalize(pooled_BC, dim=1),
                cams_Bhw=torch.einsum("bchw,c->bhw", features_BChw, weights_C),
            )


def load_imagenet_weights(model: XrayDenseNet, architecture: Architecture) -> None:
    """Start the features from torchvision's ImageNet weights, downloading them on first use.

    Raises:
        ArtifactError: they are not in torch's cache and cannot be downloaded whole.
    """
    import torchvision  # here, for it takes seconds and serving has no use for it

    try:
        pretrained = torchvision.models.get_model(architecture, weights="DEFAULT")
    except (OSError, RuntimeError) as error:
        raise ArtifactError(
            f"The ImageNet weights of {architecture} cannot be downloaded ({error}); start from random weights or from "
            f"a checkpoint folder instead, or copy the file into {torch.hub.get_dir()}/checkpoints."
        ) from error
    model.features.load_state_dict(pretrained.features.state_dict())
