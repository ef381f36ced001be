"""Two engines' outputs for the same radiographs in, how far apart they are out.

An engine is fit to serve when it says what the float32 reference says: the same logit, embedding and map.

Legend: B batch, S canvas side, D embedding, h, w cells of the map.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from xray.errors import ArtifactError
from xray.image import PixelArray
from xray.model import ModelOutput


@dataclass(frozen=True)
class Difference:
    """The worst of a batch.

    Attributes:
        logit: largest absolute difference.
        embedding: smallest cosine between the two embeddings of a radiograph.
        cam: smallest Pearson correlation between the two maps of a radiograph.
    """

    logit: float
    embedding: float
    cam: float

    def __str__(self) -> str:
        return f"logit within {self.logit:.2g}, embedding cosine {self.embedding:.6f}, map correlation {self.cam:.6f}"


LIMITS = {
    "float32": Difference(logit=1e-3, embedding=0.999999, cam=0.99999),
    "bfloat16": Difference(logit=0.02, embedding=0.9999, cam=0.999),
}
"""What an engine may differ from the reference by, by the arithmetic of its features."""


COARSEST_CELLS = 3
"""A side of the coarsest noise in a drawn canvas."""


def noise_canvases(count: int, size: int) -> PixelArray:
    """(B, 1, S, S) uint8, the same at every call: noise at all scales, of which radiographs too have something."""
    random = np.random.default_rng(0)
    canvases_BSS = np.zeros((count, size, size), np.float32)
    for canvas_SS in canvases_BSS:
        cells = COARSEST_CELLS
        while cells < size:
            noise = random.standard_normal((cells, cells), np.float32)
            canvas_SS += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC) / cells
            cells *= 2
    lowest, highest = (edge(canvases_BSS, axis=(1, 2), keepdims=True) for edge in (np.min, np.max))
    return np.asarray(255 * (canvases_BSS - lowest) / (highest - lowest), np.uint8)[:, np.newaxis]


def difference(reference: ModelOutput, candidate: ModelOutput) -> Difference:
    """The worst disagreement over a batch."""
    cosines_B = (reference.embeddings_BD * candidate.embeddings_BD).sum(1)
    maps = zip(reference.cams_Bhw.flatten(1).numpy(), candidate.cams_Bhw.flatten(1).numpy(), strict=True)
    return Difference(
        logit=float((reference.logits_B - candidate.logits_B).abs().max()),
        embedding=float(cosines_B.min()),
        cam=min(float(np.corrcoef(first, second)[0, 1]) for first, second in maps),
    )


def require_equal(found: Difference, precision: str) -> None:
    """Raises: ArtifactError: an engine of this precision differs from the reference by more than it may."""
    limit = LIMITS[precision]
    if not (found.logit <= limit.logit and found.embedding >= limit.embedding and found.cam >= limit.cam):
        raise ArtifactError(f"The {precision} engine is not fit to serve: {found}; its limits are: {limit}.")
