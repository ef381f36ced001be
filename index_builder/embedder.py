"""Prepared radiographs in, their embeddings out, a batch at a time.

Legend: n radiographs, B batch, D embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xray.gallery.vector_index import EmbeddingArray
from xray.predictor import Predictor, Prepared


@dataclass(frozen=True)
class Embedder:
    """A predictor and how many radiographs it is given at once."""

    predictor: Predictor
    batch: int

    def embed(self, prepared: Sequence[Prepared]) -> EmbeddingArray:
        """Embeddings (n, D) float32; of none, an empty array."""
        parts = [self._pass(prepared[start : start + self.batch]) for start in range(0, len(prepared), self.batch)]
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    def _pass(self, prepared: Sequence[Prepared]) -> EmbeddingArray:
        embeddings_BD: EmbeddingArray = self.predictor.engine.forward(
            np.stack([each.pixels_1SS for each in prepared])
        ).embeddings_BD.numpy()
        return embeddings_BD
