"""A predictor whose logit and embedding are known without a network."""

from collections.abc import Callable

import numpy as np
import torch

from xray.engines.base import Precision
from xray.images.preprocess import PreprocessSpec
from xray.images.radiograph import PixelArray
from xray.network.checkpoint import CheckpointManifest, TrainingData
from xray.network.embedding_space import EmbeddingArray, EmbeddingSpace
from xray.network.model import ModelOutput
from xray.predictor import Predictor

SIZE = 160
"""Side of the canvas; a square phantom of this size is not scaled."""


class FakeEngine:
    """Computes the logit by a function of the canvas (S, S); every embedding is the first axis of 16."""

    name = "fake"
    device = torch.device("cpu")
    precision: Precision = "float32"

    def __init__(self, logit: Callable[[PixelArray], float]) -> None:
        self._logit = logit

    def sizes_to_warm(self, largest: int) -> list[int]:
        return []

    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        logits = torch.tensor([self._logit(pixels_SS) for (pixels_SS,) in pixels_B1SS])
        embeddings = torch.eye(16)[0].repeat(len(logits), 1)
        return ModelOutput(logits, embeddings, torch.zeros(len(logits), 1, 1), torch.zeros(len(logits)))


def fake_predictor(logit: Callable[[PixelArray], float], familiarity: float | None = None) -> Predictor:
    """A predictor with a fake engine; every radiograph has the given familiarity, at most 10."""
    manifest = CheckpointManifest("densenet121", PreprocessSpec(size=SIZE), TrainingData("nothing", 0, 0, ""))
    engine = FakeEngine(logit)
    # The mean is at distance 1 of every embedding, and there are no directions in which it could be nearer.
    far: EmbeddingArray = np.zeros(16, np.float32)
    space = None if familiarity is None else EmbeddingSpace(far, np.zeros((16, 0), np.float32), familiarity)
    return Predictor(manifest, engine, space)
