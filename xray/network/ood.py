"""Detects images that are no radiographs of a limb: they are out of the network's scope.

Three measures are divided by their limits: color, gray levels, and the probability that the image shows no limb. If the
largest ratio is above 1, the image is out of scope. A limb may be in scope and still be unlike the training data: see
`xray.network.embedding_space`.

Legend: h, w pixels of the radiograph's content, D numbers of an embedding.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from xray.images.radiograph import Radiograph
from xray.network.embedding_space import EmbeddingArray

ScopeReason = Literal["in colour", "few gray levels", "unlike a limb"]

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
    "unlike a limb": (
        "looks less like a radiograph of a limb than like other images, such as chests, spines, slices of CT or MR, or "
        "photographs. The network's output for it would mean nothing. If it is a limb, send it uncropped, without "
        "other images beside it"
    ),
}
"""For each reason, the predicate of a sentence about the image, and what the caller can do."""


@dataclass(frozen=True)
class Scope:
    """The distance of an image from radiographs of limbs, to which alone the network can be applied.

    Attributes:
        distance: distance of at least 0, as a multiple of the limit; above 1 the image is out of scope.
        reason: the measure that is largest relative to its limit.
    """

    distance: float
    reason: ScopeReason

    @property
    def in_scope(self) -> bool:
        """Whether the image is in scope, so that the network can be applied to it."""
        return self.distance <= 1

    @property
    def explanation(self) -> str:
        """The predicate of a sentence about an image that is out of scope."""
        return f"{EXPLANATIONS[self.reason]} ({self.reason}: {self.distance:.2f} of the limit)."


@dataclass(frozen=True)
class LimbClassifier:
    """A logistic regression on embeddings that tells radiographs of limbs from all other images.

    Attributes:
        weights_D: weights of an embedding's numbers in the logit that the image shows no limb, float32.
        bias: bias of that logit.
        limit: probability of showing no limb, above 0 and below 1, beyond which an image is out of scope.
    """

    weights_D: EmbeddingArray
    bias: float
    limit: float

    def distance(self, embedding_D: EmbeddingArray) -> float:
        """Return the probability that an image with this embedding shows no limb, as a multiple of the limit."""
        logit = float(embedding_D @ self.weights_D) + self.bias
        return 0.5 * (1 + math.tanh(logit / 2)) / self.limit


def measure_scope(radiograph: Radiograph, embedding_D: EmbeddingArray, limb_classifier: LimbClassifier | None) -> Scope:
    """Measure the distance of an image from radiographs of limbs.

    Args:
        embedding_D: embedding of the image, float32 of length 1.
        limb_classifier: None measures only the appearance.
    """
    seen = appearance(radiograph)
    if limb_classifier is None:
        return seen
    unlike_a_limb = Scope(limb_classifier.distance(embedding_D), "unlike a limb")
    return max(seen, unlike_a_limb, key=lambda scope: scope.distance)


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
