"""Artifacts in, a pair that is fit to serve out: verified, warmed, and its answer to the canary known."""

import itertools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from app.settings import Settings
from xray.engines.int8_graph import QUANTIZED
from xray.engines.registry import choose_device, load_engine
from xray.errors import ArtifactError
from xray.gallery.gallery import Gallery, Neighbor, Wanted
from xray.gallery.storage import load_gallery
from xray.images.decoding.decode import decode_radiograph
from xray.network.checkpoint import load_checkpoint
from xray.predictor import Predictor, StudyPrediction

CANARY = Path(__file__).resolve().parent / "canary.png"
"""A drawn radiograph, sent through a replica to see whether it still says what it said at first."""
CANARY_NEIGHBORS = Wanted(k=3)
LOGIT_TOLERANCE = 0.1
"""The company in a batch may change a logit by less, in any arithmetic."""

logger = logging.getLogger(__name__)

_numbers = itertools.count(1)


@dataclass(frozen=True)
class CanaryAnswer:
    """What a replica says of the canary: its logit and the similarities of its nearest entries."""

    logit: float
    similarities: tuple[float, ...]

    def agrees_with(self, other: "CanaryAnswer") -> bool:
        mine, theirs = (np.array([answer.logit, *answer.similarities]) for answer in (self, other))
        return mine.shape == theirs.shape and bool(np.allclose(mine, theirs, rtol=0, atol=LOGIT_TOLERANCE))


@dataclass(frozen=True)
class Generation:
    """A checkpoint's network and the gallery that belongs to it; a reload puts the next one in its place.

    Attributes:
        known: what this pair said of the canary when it was loaded.
        batch_seconds: measured when it was warmed, by the number of radiographs.
        number: differs from that of any other generation of this process.
    """

    predictor: Predictor
    gallery: Gallery
    known: CanaryAnswer
    batch_seconds: Mapping[int, float] = field(default_factory=dict)
    number: int = field(default_factory=lambda: next(_numbers))

    def __str__(self) -> str:
        name, engine = self.predictor.manifest.id, self.predictor.engine.name
        return f"checkpoint {name} on {engine} with a gallery of {len(self.gallery.entries):,} radiographs"


def load_generation(settings: Settings) -> Generation:
    """Read, verify and warm the artifacts that the settings name.

    Raises:
        ArtifactError: a file is missing or damaged, checkpoint and gallery do not belong together, or the network says
            nothing sensible of the canary.
        InputError: the device is not there.
    """
    device = choose_device(settings.device)
    checkpoint = load_checkpoint(settings.checkpoint)
    gallery = load_gallery(settings.gallery, checkpoint.manifest.id, on_gpu=device.type == "cuda")
    logger.info("Preparing checkpoint %s; its first time on a machine takes longer.", checkpoint.manifest.id)
    quantized = settings.checkpoint / QUANTIZED
    engine = load_engine(checkpoint, settings.device, settings.precision, settings.cache, quantized)
    predictor = Predictor(checkpoint.manifest, engine)
    sizes = sorted(predictor.engine.sizes_to_warm(settings.max_batch))
    batch_seconds = {size: _warmed(predictor, size) for size in sizes}
    study = predictor.predict([decode_radiograph(CANARY.read_bytes())])
    known = canary_answer(study, gallery.search(study.embedding_D, CANARY_NEIGHBORS))
    if not np.isfinite(known.logit):
        raise ArtifactError(f"{settings.checkpoint} gives a drawn radiograph the logit {known.logit}; use another.")
    return Generation(predictor, gallery, known, batch_seconds)


def canary_answer(study: StudyPrediction, neighbors: list[Neighbor]) -> CanaryAnswer:
    return CanaryAnswer(study.radiographs[0].logit, tuple(neighbor.similarity for neighbor in neighbors))


def _warmed(predictor: Predictor, size: int) -> float:
    """Seconds of a batch, after a first one that compiles, allocates and pages in."""
    side = predictor.manifest.preprocess.size
    pixels_B1SS = np.zeros((size, 1, side, side), np.uint8)
    predictor.engine.forward(pixels_B1SS)
    started = time.monotonic()
    predictor.engine.forward(pixels_B1SS)
    return time.monotonic() - started
