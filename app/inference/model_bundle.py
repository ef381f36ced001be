"""Loads a checkpoint and its gallery, verifies that they belong together and warms them up."""

import itertools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from app.settings import Settings
from xray.engines.registry import choose_device, load_engine
from xray.errors import ArtifactError
from xray.gallery.gallery import Gallery, Neighbor, NeighborQuery
from xray.gallery.storage import load_gallery
from xray.images.decoding.decode import decode_radiograph
from xray.network.checkpoint import load_checkpoint
from xray.predictor import Predictor, StudyPrediction

CANARY = Path(__file__).resolve().parent / "canary.png"
"""A drawn radiograph that is analyzed at regular intervals to check that the result is still the first one."""
CANARY_NEIGHBORS = NeighborQuery(k=3)
LOGIT_TOLERANCE = 0.1
"""Tolerance for the canary's logit and similarities. Other radiographs in the batch change them by less than this."""

logger = logging.getLogger(__name__)

_numbers = itertools.count(1)


@dataclass(frozen=True)
class CanaryAnswer:
    """A bundle's result for the canary: its logit and the similarities of its nearest entries."""

    logit: float
    similarities: tuple[float, ...]

    def agrees_with(self, other: "CanaryAnswer") -> bool:
        """Return whether both results for the canary are equal within `LOGIT_TOLERANCE`."""
        mine, theirs = (np.array([answer.logit, *answer.similarities]) for answer in (self, other))
        return mine.shape == theirs.shape and bool(np.allclose(mine, theirs, rtol=0, atol=LOGIT_TOLERANCE))


@dataclass(frozen=True)
class ModelBundle:
    """A bundle of a network and the gallery that was built with it; a reload replaces both.

    Attributes:
        expected_canary: the result for the canary when the bundle was loaded.
        batch_seconds: the time of a batch in seconds, by its size, measured during warm-up.
        number: a number that is unique among the bundles of this process.
    """

    predictor: Predictor
    gallery: Gallery
    expected_canary: CanaryAnswer
    batch_seconds: Mapping[int, float] = field(default_factory=dict)
    number: int = field(default_factory=lambda: next(_numbers))

    def __str__(self) -> str:
        name, engine = self.predictor.manifest.id, self.predictor.engine.name
        return f"checkpoint {name} on {engine} with a gallery of {len(self.gallery.entries):,} radiographs"


def load_bundle(settings: Settings) -> ModelBundle:
    """Load the bundle of the checkpoint and the gallery that the settings name, verify it and warm it up.

    Raises:
        ArtifactError: a file is missing or damaged, checkpoint and gallery do not belong together, or the canary's
            logit is not finite.
        InputError: the device is not available.
    """
    device = choose_device(settings.device)
    checkpoint = load_checkpoint(settings.checkpoint)
    gallery = load_gallery(settings.gallery, checkpoint.manifest.id, on_gpu=device.type == "cuda")
    logger.info("Preparing checkpoint %s; the first time on a machine takes longer.", checkpoint.manifest.id)
    engine = load_engine(checkpoint, settings.device, settings.precision, settings.cache)
    predictor = Predictor.from_artifacts(checkpoint, engine, gallery)
    _warn_of_missing_limits(predictor)
    sizes = sorted(predictor.engine.sizes_to_warm(settings.max_batch))
    batch_seconds = {size: _warm_up(predictor, size) for size in sizes}
    study = predictor.predict([decode_radiograph(CANARY.read_bytes())])
    expected = canary_answer(study, gallery.search(study.embedding_D, CANARY_NEIGHBORS))
    if not np.isfinite(expected.logit):
        raise ArtifactError(
            f"{settings.checkpoint} computes the logit {expected.logit} for the canary; use another checkpoint."
        )
    return ModelBundle(predictor, gallery, expected, batch_seconds)


def _warn_of_missing_limits(predictor: Predictor) -> None:
    """Log which images the checkpoint cannot recognize as unsuitable."""
    if predictor.limb_classifier is None:
        logger.warning(
            "Checkpoint %s cannot tell limbs from other images: only images in color or with few gray levels are "
            "out of scope. Run `python -m training fit-scope` with --others.",
            predictor.manifest.id,
        )
    if predictor.space is None:
        logger.warning(
            "Checkpoint %s has no limit of familiarity, so limbs unlike its training data are not called uncertain. "
            "Run `python -m training fit-scope`.",
            predictor.manifest.id,
        )


def canary_answer(study: StudyPrediction, neighbors: list[Neighbor]) -> CanaryAnswer:
    """Return a bundle's result for the canary from the canary's prediction and neighbors."""
    return CanaryAnswer(study.radiographs[0].logit, tuple(neighbor.similarity for neighbor in neighbors))


def _warm_up(predictor: Predictor, size: int) -> float:
    """Run a batch twice and return the seconds of the second run, because the first one compiles and allocates."""
    side = predictor.manifest.preprocess.size
    pixels_B1SS = np.zeros((size, 1, side, side), np.uint8)
    predictor.engine.forward(pixels_B1SS)
    started = time.monotonic()
    predictor.engine.forward(pixels_B1SS)
    return time.monotonic() - started
