"""The network: a uint8 batch in, logits, embeddings and CAMs out of one forward pass.

Legend: B batch, S canvas side, C = D channels of the last feature map (1920 for DenseNet-201), h, w its cells.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xray.errors import ArtifactError
from xray.images.preprocess import PreprocessSpec
from xray.network.decision import StudyPooling
from xray.network.densenet import Architecture, MapStride, dense_features

MapPooling = Literal["mean", "lse"]
ATTENTION_WIDTH = 64
"""Hidden units of the attention over views."""


@dataclass(frozen=True)
class ModelOutput:
    """What one pass says about a batch of radiographs.

    Attributes:
        logits_B: float32, before the sigmoid; positive speaks for abnormal.
        embeddings_BD: float32, the pooled feature map, L2-normalised.
        cams_Bhw: float32, how much each cell speaks for abnormality: `pool(cams_Bhw) + bias == logits_B`.
        attentions_B: float32, log weight of each radiograph within its study, up to a constant; 0 where the network
            was not trained to weigh.
    """

    logits_B: Tensor
    embeddings_BD: Tensor
    cams_Bhw: Tensor
    attentions_B: Tensor

    def cpu(self) -> "ModelOutput":
        return ModelOutput(self.logits_B.cpu(), self.embeddings_BD.cpu(), self.cams_Bhw.cpu(), self.attentions_B.cpu())


@dataclass(frozen=True)
class MapSpec:
    """How fine the map is, and how it becomes the logit; it travels in the checkpoint's manifest.

    Attributes:
        stride: canvas pixels per cell.
        pooling: of the map's cells. `mean` is global average pooling. `lse`, log-mean-exp (Pinheiro and Collobert 2015,
            arXiv 1411.6228), lets few cells decide: the odds of the radiograph are the mean of its cells' odds.
    """

    stride: MapStride = 32
    pooling: MapPooling = "mean"


class GatedAttention(nn.Module):
    """How much a radiograph weighs within its study (Ilse et al. 2018, arXiv 1802.04712); all alike until trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(channels, ATTENTION_WIDTH), nn.Linear(channels, ATTENTION_WIDTH)
        self.score = nn.Linear(ATTENTION_WIDTH, 1, bias=False)
        nn.init.zeros_(self.score.weight)
        self.scale = math.sqrt(channels)

    def forward(self, embeddings_BD: Tensor) -> Tensor:
        """(B, D) of length 1 to (B,)."""
        scaled_BD = self.scale * embeddings_BD  # so that a number of it has variance 1 and not 1 / D
        gated_BW = torch.tanh(self.value(scaled_BD)) * torch.sigmoid(self.gate(scaled_BD))
        scores_B: Tensor = self.score(gated_BW).squeeze(1)
        return scores_B


class XrayDenseNet(nn.Module):
    """DenseNet (Huang et al. 2017, arXiv 1608.06993) with one logit for abnormality.

    The class activation map (Zhou et al. 2016, arXiv 1512.04150) is the linear unit applied to each cell of the last
    feature map; pooled over its cells it is the logit without the bias.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: Architecture,
        spec: PreprocessSpec,
        map_spec: MapSpec = MapSpec(),
        study_pooling: StudyPooling = "mean",
    ) -> None:
        super().__init__()
        self.map_spec = map_spec
        features = dense_features(architecture, map_spec.stride)
        self.features = features.layers
        self.classifier = nn.Linear(features.channels, 1)
        self.attention = GatedAttention(features.channels) if study_pooling == "attention" else None
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
            cams_Bhw = torch.einsum("bchw,c->bhw", features_BChw, self.classifier.weight[0])
            embeddings_BD = F.normalize(features_BChw.mean((2, 3)), dim=1)
            logits_B = pool(cams_Bhw, self.map_spec.pooling) + self.classifier.bias
            attentions_B = torch.zeros_like(logits_B) if self.attention is None else self.attention(embeddings_BD)
            return ModelOutput(logits_B, embeddings_BD, cams_Bhw, attentions_B)


def pool(cams_Bhw: Tensor, pooling: MapPooling) -> Tensor:
    """Maps (B, h, w) to what they add to the logits (B,); a constant map pools to its constant."""
    cams_Bc = cams_Bhw.flatten(1)
    return cams_Bc.mean(1) if pooling == "mean" else cams_Bc.logsumexp(1) - math.log(cams_Bc.shape[1])


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
