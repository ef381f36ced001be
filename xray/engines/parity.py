"""Measures how far an engine's outputs are from the float32 reference's, and refuses engines that are too far off.

An engine is fit to serve if its logits, embeddings and maps equal the reference's within limits, and if it ranks
radiographs like the reference.

Legend: B batch, S canvas side, D embedding, h, w cells of the map.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from xray.engines.base import Precision
from xray.errors import ArtifactError
from xray.images.radiograph import PixelArray
from xray.network.model import ModelOutput

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """The difference between an engine's outputs and the reference's on some radiographs.

    Attributes:
        logit: absolute difference of the logits; 0 if they are equal.
        embedding: cosine between the two embeddings of a radiograph; 1 if they are equal.
        cam: Pearson correlation between the two maps of a radiograph; 1 if they are equal.
    """

    logit: float
    embedding: float
    cam: float

    def __str__(self) -> str:
        return f"logit within {self.logit:.2g}, embedding cosine {self.embedding:.6f}, map correlation {self.cam:.6f}"


@dataclass(frozen=True)
class Comparison:
    """A comparison of an engine with the float32 reference on radiographs of both classes.

    Attributes:
        engine: name of the engine.
        images, abnormal: number of radiographs, and number of abnormal ones among them.
        worst: the largest difference of logits, the smallest cosine and the smallest correlation.
        mean: the means of these three.
        reference_auroc, auroc: AUROC over radiographs, of the reference and of the engine.
    """

    engine: str
    images: int
    abnormal: int
    worst: Difference
    mean: Difference
    reference_auroc: float
    auroc: float

    @property
    def auroc_limit(self) -> float:
        """Maximum difference of an engine's AUROC from the reference's: `AUROC_LIMIT`, or more for few images."""
        return max(AUROC_LIMIT, (AUROC_PAIRS + 0.001) / (self.abnormal * (self.images - self.abnormal)))

    def __str__(self) -> str:
        areas = f"AUROC {self.auroc:.4f} for the reference's {self.reference_auroc:.4f}"
        return f"{self.engine} on {self.images} radiographs: {self.worst}, {areas}"


LIMITS: dict[Precision, Difference] = {
    "float32": Difference(logit=1e-3, embedding=0.999999, cam=0.99999),
    "bfloat16": Difference(logit=0.15, embedding=0.9999, cam=0.999),
    "int8": Difference(logit=0.15, embedding=0.99, cam=0.99),
}
"""Limits on an engine's difference from the reference, by the precision of its features. If few cells of a map decide,
their rounding errors do not average out: pooled by log-mean-exp, the starter checkpoint's logit is off by 0.10 on one
of 420 radiographs, and by 0.01 on average. An error of 0.15 changes no probability by more than 0.04."""
AUROC_LIMIT = 0.005
"""Maximum change of the area under the ROC curve, in any precision, on more than a few radiographs."""
AUROC_PAIRS = 5
"""Pairs of a normal and an abnormal radiograph that may change places even if there are few pairs: the share
`AUROC_LIMIT` of the 1,024 pairs of 64 radiographs. Early in training, many pairs have nearly equal logits."""

COARSEST_CELLS = 3
"""Side of the coarsest noise in a canvas, in cells."""


def noise_canvases(count: int, size: int) -> PixelArray:
    """Return noise to compare engines on, uint8 (B, 1, S, S), always the same, with structure like radiographs."""
    random = np.random.default_rng(0)
    canvases_BSS = np.zeros((count, size, size), np.float32)
    for canvas_SS in canvases_BSS:
        cells = COARSEST_CELLS
        while cells < size:
            noise = random.standard_normal((cells, cells), np.float32)
            canvas_SS += np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)) / cells
            cells *= 2
    lowest, highest = (edge(canvases_BSS, axis=(1, 2), keepdims=True) for edge in (np.min, np.max))
    return np.asarray(255 * (canvases_BSS - lowest) / (highest - lowest), np.uint8)[:, np.newaxis]


def difference(reference: ModelOutput, candidate: ModelOutput) -> Difference:
    """Return the largest difference of an engine's outputs from the reference's over a batch."""
    return worst(differences(reference, candidate))


def differences(reference: ModelOutput, candidate: ModelOutput) -> FloatArray:
    """Return an engine's differences from the reference for each radiograph: `Difference`'s fields, (B, 3)."""
    logits_B = (reference.logits_B - candidate.logits_B).abs()
    cosines_B = (reference.embeddings_BD * candidate.embeddings_BD).sum(1)
    maps = zip(reference.cams_Bhw.flatten(1).numpy(), candidate.cams_Bhw.flatten(1).numpy(), strict=True)
    correlations_B = torch.tensor([_correlation(first, second) for first, second in maps])
    return torch.stack([logits_B, cosines_B, correlations_B], dim=1).double().numpy()


def worst(differences_B3: FloatArray) -> Difference:
    """Return the worst of an engine's differences from the reference, by column of (B, 3); NaN if one is NaN."""
    lowest, highest = differences_B3.min(0), differences_B3.max(0)
    return Difference(float(highest[0]), float(lowest[1]), float(lowest[2]))


def mean(differences_B3: FloatArray) -> Difference:
    """Return the mean of an engine's differences from the reference, by column of (B, 3)."""
    return Difference(*map(float, differences_B3.mean(0)))


def require_equal(found: Difference, precision: Precision) -> None:
    """Check an engine's difference from the reference against the limits of its precision.

    Raises:
        ArtifactError: a limit is exceeded; the message gives the figures.
    """
    limit = LIMITS[precision]
    if not (found.logit <= limit.logit and found.embedding >= limit.embedding and found.cam >= limit.cam):
        raise _unfit(precision, f"{found}; its limits are: {limit}")


def require_fit(comparison: Comparison, precision: Precision) -> None:
    """Check an engine's comparison with the reference against the limits of its precision.

    Raises:
        ArtifactError: a limit is exceeded, or the engine ranks the radiographs differently.
    """
    require_equal(comparison.worst, precision)
    if not abs(comparison.auroc - comparison.reference_auroc) <= comparison.auroc_limit:
        areas = f"its AUROC is {comparison.auroc:.4f}, the reference's is {comparison.reference_auroc:.4f}"
        raise _unfit(precision, f"{areas}; they may differ by {comparison.auroc_limit:.4f}")


def _unfit(precision: Precision, reason: str) -> ArtifactError:
    advice = "" if precision == "float32" else " Serve the checkpoint with OSTEON_PRECISION=float32."
    return ArtifactError(f"The {precision} engine is not fit to serve: {reason}.{advice}")


def _correlation(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    # The correlation of maps with one cell is undefined; such a map only repeats the logit.
    return 1.0 if len(first) == 1 else float(np.corrcoef(first, second)[0, 1])
