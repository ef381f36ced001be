"""Detects images to which the network cannot be applied, because they are out of scope.

Three measures are divided by their limits: color, gray levels, and the distance of the embedding from those of the
training data (`xray.network.embedding_space`). If the largest ratio is above 1, the image is out of scope.

Legend: h, w pixels of the radiograph's content.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xray.images.radiograph import Radiograph
from xray.network.embedding_space import EmbeddingArray, EmbeddingSpace

ScopeReason = Literal["in colour", "few gray levels", "unlike the gallery"]

MAX_COLORED = 0.1
"""Maximum share of colored pixels; a colored mark on a radiograph stays below it."""
MIN_ENTROPY = 2.5
"""Minimum entropy of the histogram of gray levels, in bits per pixel: each of 2,857 radiographs of limbs has at least
3, drawings have 1 to 2."""
HISTOGRAM_PIXELS = 65_536
"""Approximate number of pixels in the histogram: a sample, whose entropy is nearly that of the image."""


EXPLANATIONS: dict[ScopeReason, str] = {
    "in colour": "is in color, unlike radiographs; send the radiograph itself, in gray, instead of a photograph of it",
    "few gray levels": "has too few gray levels to be analyzed; export it again with its whole range of gray",
    "unlike the gallery": (
        "is unlike the radiographs that the network was trained on. It may still show a limb: of another body part, or "
        "exposed, processed or cropped in another way. The network's output for it would mean nothing; /info names the "
        "body parts that it knows"
    ),
}
"""For each reason, the predicate of a sentence about the image, and what the caller can do."""


@dataclass(frozen=True)
class Scope:
    """The distance of a radiograph from the images to which the network can be applied.

    Attributes:
        distance: distance of at least 0, as a multiple of the limit; above 1 the image is out of scope.
        reason: the measure that is largest relative to its limit.
    """

    distance: float
    reason: ScopeReason

    @property
    def in_scope(self) -> bool:
        """Whether the radiograph is in scope, so that the network can be applied to it."""
        return self.distance <= 1

    @property
    def explanation(self) -> str:
        """The predicate of a sentence that says why a radiograph is out of scope."""
        return f"{EXPLANATIONS[self.reason]} ({self.reason}: {self.distance:.2f} of the limit)."


def measure_scope(radiograph: Radiograph, embedding_D: EmbeddingArray, space: EmbeddingSpace | None) -> Scope:
    """Measure whether a radiograph is in scope: its distance from the images that the network can be applied to.

    Args:
        embedding_D: embedding of the radiograph, float32 of length 1.
        space: space of the training data's embeddings; None measures only the appearance.
    """
    seen = appearance(radiograph)
    if space is None:
        return seen
    unlike_training_data = Scope(space.distance(embedding_D), "unlike the gallery")
    return max(seen, unlike_training_data, key=lambda scope: scope.distance)


def appearance(radiograph: Radiograph) -> Scope:
    """Measure a radiograph's scope by its pixels only: by color and gray levels."""
    pixels_hw = radiograph.content_pixels
    step = max(1, int(np.sqrt(pixels_hw.size / HISTOGRAM_PIXELS)))
    counts = np.bincount(pixels_hw[::step, ::step].ravel(), minlength=256)
    shares = counts[counts > 0] / counts.sum()
    entropy = float(-(shares * np.log2(shares)).sum())
    color = Scope(radiograph.color_share / MAX_COLORED, "in colour")
    gray_levels = Scope(MIN_ENTROPY / max(entropy, np.finfo(float).tiny), "few gray levels")
    return max(color, gray_levels, key=lambda scope: scope.distance)
