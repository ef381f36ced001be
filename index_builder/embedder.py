"""Computes the embeddings of a gallery's radiographs in batches.

Legend: n radiographs, D embedding.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from xray.engines.batch_inference import infer_in_batches
from xray.gallery.vector_index import EmbeddingArray
from xray.predictor import Predictor, Prepared


@dataclass(frozen=True)
class Embedder:
    """A predictor that embeds radiographs in batches.

    Attributes:
        batch: radiographs per forward pass.
    """

    predictor: Predictor
    batch: int

    def embed(self, prepared: Iterable[Prepared]) -> EmbeddingArray:
        """Embed radiographs in batches; return (n, D) float32, or (0, 0) if there are no radiographs."""
        passes = infer_in_batches(self.predictor.engine, prepared, self.batch)
        parts = [output.embeddings_BD.numpy() for _, output in passes]
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
