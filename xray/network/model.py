"""The network: one forward pass over a batch of radiographs gives logits, embeddings and CAMs.

Legend: B batch, S canvas side, C = D channels of the last feature map (1920 for DenseNet-201), h, w its cells,
W hidden units of the attention.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xray.images.preprocess import PreprocessSpec
from xray.network.backbone import build_features, find_backbone
from xray.network.decision import StudyPooling

MapStride = Literal[16, 32]
"""Canvas pixels per cell of the last feature map."""
MapPooling = Literal["mean", "lse"]
ATTENTION_WIDTH = 64
"""Number of hidden units of the attention over views."""


@dataclass(frozen=True)
class ModelOutput:
    """The model's outputs from one forward pass of the network over a batch of radiographs.

    Attributes:
        logits_B: float32, before the sigmoid; positive values mean abnormal.
        embeddings_BD: float32, the pooled feature map, L2-normalized.
        cams_Bhw: float32, evidence of each cell for abnormality: `pool(cams_Bhw) + bias == logits_B`.
        attentions_B: float32, log weight of each radiograph within its study, up to a constant; 0 if the network has
            no attention.
    """

    logits_B: Tensor
    embeddings_BD: Tensor
    cams_Bhw: Tensor
    attentions_B: Tensor

    def cpu(self) -> "ModelOutput":
        """Return the same outputs of the network on the CPU."""
        return ModelOutput(self.logits_B.cpu(), self.embeddings_BD.cpu(), self.cams_Bhw.cpu(), self.attentions_B.cpu())


@dataclass(frozen=True)
class MapSpec:
    """How a model forms its map and pools it to the logit; part of the checkpoint's manifest.

    Attributes:
        stride: canvas pixels per cell; an architecture may support only some values.
        pooling: `mean` is global average pooling. `lse`, log-mean-exp (Pinheiro and Collobert 2015,
            arXiv 1411.6228), lets a few cells decide: the odds of the radiograph are the mean of its cells' odds.
    """

    stride: MapStride = 32
    pooling: MapPooling = "mean"


class GatedAttention(nn.Module):
    """The model's attention layer: computes log weights of radiographs within a study, which are equal until trained.

    The method is that of Ilse et al. 2018, arXiv 1802.04712.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value = nn.Linear(channels, ATTENTION_WIDTH)
        self.gate = nn.Linear(channels, ATTENTION_WIDTH)
        self.score = nn.Linear(ATTENTION_WIDTH, 1, bias=False)
        nn.init.zeros_(self.score.weight)
        self.scale = math.sqrt(channels)

    def forward(self, embeddings_BD: Tensor) -> Tensor:
        """Map the network's embeddings (B, D) of length 1 to log weights within a study (B,)."""
        scaled_BD = self.scale * embeddings_BD  # each number then has variance 1 instead of 1 / D
        gated_BW = torch.tanh(self.value(scaled_BD)) * torch.sigmoid(self.gate(scaled_BD))
        scores_B: Tensor = self.score(gated_BW).squeeze(1)
        return scores_B


class XrayNetwork(nn.Module):
    """The network: a backbone, global pooling and one linear unit, which give one logit for abnormality.

    The class activation map (Zhou et al. 2016, arXiv 1512.04150) is the linear unit applied to each cell of the last
    feature map; pooled over its cells it is the logit without the bias.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: str,
        spec: PreprocessSpec,
        map_spec: MapSpec = MapSpec(),
        study_pooling: StudyPooling = "mean",
    ) -> None:
        """Build the network with fresh weights.

        Args:
            architecture: a name in `BACKBONES`.
            spec: preprocessing; the network applies its mean and standard deviation of gray levels.

        Raises:
            ArtifactError: the architecture is unknown or has no map of that stride.
        """
        super().__init__()
        self.backbone = find_backbone(architecture)
        self.map_spec = map_spec
        self.features = build_features(architecture, map_spec.stride)
        self.classifier = nn.Linear(self.backbone.channels, 1)
        self.attention = GatedAttention(self.backbone.channels) if study_pooling == "attention" else None
        # Not persistent, because they are stored in the manifest and not in the weights file.
        self.register_buffer("mean", torch.tensor(255 * spec.mean), persistent=False)
        self.register_buffer("std", torch.tensor(255 * spec.std), persistent=False)

    def forward(self, pixels_B1SS: Tensor) -> ModelOutput:
        """Run the whole network: map uint8 (B, 1, S, S) to a `ModelOutput` of B rows."""
        return self.forward_head(self.forward_features(pixels_B1SS))

    def forward_features(self, pixels_B1SS: Tensor) -> Tensor:
        """Run the network's backbone: uint8 (B, 1, S, S) to the last map (B, C, h, w), after its activation."""
        features_BChw: Tensor = self.features(self.normalize(pixels_B1SS).expand(-1, 3, -1, -1))
        return features_BChw

    def normalize(self, pixels_B1SS: Tensor) -> Tensor:
        """Map uint8 (B, 1, S, S) to the network's gray levels, float32, mean of about 0 and variance of about 1."""
        return (pixels_B1SS.float() - self.mean) / self.std

    def forward_head(self, features_BChw: Tensor) -> ModelOutput:
        """Run the network's head: the last map (B, C, h, w) in any float type to a `ModelOutput`, in float32."""
        with torch.autocast(features_BChw.device.type, enabled=False):
            features_BChw = features_BChw.float()
            cams_Bhw = torch.einsum("bchw,c->bhw", features_BChw, self.classifier.weight[0])
            embeddings_BD = F.normalize(features_BChw.mean((2, 3)), dim=1)
            logits_B = pool(cams_Bhw, self.map_spec.pooling) + self.classifier.bias
            attentions_B = torch.zeros_like(logits_B) if self.attention is None else self.attention(embeddings_BD)
            return ModelOutput(logits_B, embeddings_BD, cams_Bhw, attentions_B)


def pool(cams_Bhw: Tensor, pooling: MapPooling) -> Tensor:
    """Pool the model's maps (B, h, w) to its logits without the bias (B,); a constant map pools to its constant."""
    cams_Bc = cams_Bhw.flatten(1)
    return cams_Bc.mean(1) if pooling == "mean" else cams_Bc.logsumexp(1) - math.log(cams_Bc.shape[1])


def load_imagenet_weights(model: XrayNetwork) -> None:
    """Load ImageNet weights into a model, in place of its features' own; they are downloaded on first use.

    Raises:
        ArtifactError: the weights are not in torch's cache and cannot be downloaded.
    """
    model.features.load_state_dict(model.backbone.imagenet_weights())
