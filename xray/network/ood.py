"""A radiograph and its embedding in, whether it is one that the network can judge out.

Three measures, each as a share of its limit; the greatest counts, and above 1 the network has nothing to say.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xray.images.radiograph import Radiograph

ScopeReason = Literal["in colour", "few gray levels", "unlike the gallery"]

MAX_COLOURED = 0.1
"""Share of an image's pixels; a coloured mark on a radiograph stays below it."""
MIN_ENTROPY = 2.5
"""Bits per pixel of the histogram of gray levels. Of 2,857 limbs none has less than 3; drawings have 1 to 2."""
HISTOGRAM_PIXELS = 65_536
"""At most so many are counted."""


EXPLANATIONS: dict[ScopeReason, str] = {
    "in colour": "is in colour, which a radiograph is not; send the radiograph itself, in gray, not a photograph of it",
    "few gray levels": "shows too few gray levels to be judged; export it again with its whole range of gray",
    "unlike the gallery": (
        "is unlike the radiographs that the network was trained on. It may still show a limb: of another body part, or "
        "exposed, processed or cropped in another way. What the network says of it would mean nothing; /info names the "
        "body parts that it knows"
    ),
}
"""What is true of an image that is out of scope, and what the caller can do."""


@dataclass(frozen=True)
class Scope:
    """How far a radiograph is from what can be judged.

    Attributes:
        distance: 0 and up; above 1 it is out of scope.
        reason: what is farthest.
    """

    distance: float
    reason: ScopeReason

    @property
    def inside(self) -> bool:
        return self.distance <= 1

    @property
    def explanation(self) -> str:
        """The predicate of a sentence about the radiograph, for one that is out of scope."""
        return f"{EXPLANATIONS[self.reason]} ({self.reason}: {self.distance:.2f} of the limit)."


def appearance(radiograph: Radiograph) -> Scope:
    """What the pixels alone tell."""
    pixels_hw = radiograph.content_pixels
    step = max(1, int(np.sqrt(pixels_hw.size / HISTOGRAM_PIXELS)))
    counts = np.bincount(pixels_hw[::step, ::step].ravel(), minlength=256)
    shares = counts[counts > 0] / counts.sum()
    entropy = float(-(shares * np.log2(shares)).sum())
    coloured = Scope(radiograph.color_share / MAX_COLOURED, "in colour")
    return farther(coloured, Scope(MIN_ENTROPY / max(entropy, np.finfo(float).tiny), "few gray levels"))


def farther(first: Scope, second: Scope) -> Scope:
    return max(first, second, key=lambda scope: scope.distance)
