"""What the network finds in the study of a job.

However many radiographs a study has, and however large they are, one of them is in memory at a time: of the others a
small picture, the map and a few numbers are kept.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import numpy as np

from app.inference.model_bundle import Generation
from app.inference.predictor_service import PredictorService
from app.settings import Settings
from pacs.instance import Instance
from pacs.queue.jobs import Job
from pacs.results.picture import Picture, draw_picture
from pacs.results.rendering.worker_pool import ResultPool
from pacs.results.result import RadiographFinding, Source, StudyFinding
from xray.errors import InputError, OutOfScopeError, TooManyPixelsError, UnreadableImageError, XrayError
from xray.images.radiograph import PixelArray
from xray.network.cam import Region, find_regions
from xray.network.checkpoint import CODE_VERSION
from xray.predictor import Prediction

MAX_LEFT_OUT = 256
"""Radiographs that are left out by name; a study of more is not looked at any further."""
NO_PIXELS: PixelArray = np.zeros((0, 0), np.uint8)

logger = logging.getLogger(__name__)


class NothingToJudgeError(XrayError):
    """A study without a radiograph that can be judged."""


@dataclass(frozen=True)
class _View:
    """What is kept of a radiograph that was judged.

    Attributes:
        prediction: without the pixels.
    """

    source: Source
    prediction: Prediction
    picture: Picture
    regions: tuple[Region, ...]


@dataclass
class _Judged:
    """The radiographs of a study so far.

    Attributes:
        pixels: of all that were judged.
    """

    views: list[_View] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    more_left_out: bool = False
    pixels: int = 0


async def analyse(
    service: PredictorService, results: ResultPool, job: Job, instances: AsyncGenerator[Instance]
) -> StudyFinding:
    """Judge a study's radiographs one after the other, and then together; what cannot be judged is left out and named.

    Raises:
        NothingToJudgeError: that is all of them; the message says why.
    """
    generation, judged = service.generation, _Judged()
    async with aclosing(instances):
        async for instance in instances:
            if len(judged.left_out) == MAX_LEFT_OUT:
                judged.more_left_out = True
                break
            try:
                _require_room(judged, service.settings)
                prediction = await _predict(service, generation, instance.data)
                source = await _source(results, job, instance)
                await _add(service, source, prediction, judged)
            except InputError as error:
                judged.left_out.append((instance.instance_uid, str(error)))
    if not judged.views:
        reasons = sorted({reason for _, reason in judged.left_out}) or ["The study holds no radiographs (CR or DX)."]
        raise NothingToJudgeError(" ".join(reasons))
    return _finding(generation, job.study_uid, judged)


def _require_room(judged: _Judged, settings: Settings) -> None:
    if len(judged.views) == settings.max_study_radiographs:
        raise InputError(f"The study has more than {settings.max_study_radiographs} radiographs; these were judged.")


async def _add(service: PredictorService, source: Source, prediction: Prediction, judged: _Judged) -> None:
    """Keep what the study's result needs of a radiograph.

    Raises:
        TooManyPixelsError: the study has more pixels than may be judged together.
    """
    pixels, most = prediction.prepared.radiograph.pixels.size, service.settings.max_study_pixels
    if judged.pixels + pixels > most:
        raise TooManyPixelsError(f"The study has more than {most:,} pixels; those before it were judged.")
    judged.views.append(await service.off_loop(_view, source, prediction, len(judged.views) + 1))
    judged.pixels += pixels


async def _source(results: ResultPool, job: Job, instance: Instance) -> Source:
    """What the results take over from a radiograph's header.

    Raises:
        InputError: it cannot be copied, or names another study or instance.
    """
    source = await results.source(instance.data)
    if (source.study_uid, source.instance_uid) != (job.study_uid, instance.instance_uid):
        raise UnreadableImageError("The file names more than one study or instance; export it again.")
    if source.not_copied:
        logger.warning(
            "Job %s: %d attributes of an instance are too large, too deep or damaged and not in the results: %s.",
            job.id,
            len(source.not_copied),
            ", ".join(source.not_copied),
        )
    return source


async def _predict(service: PredictorService, generation: Generation, data: bytes) -> Prediction:
    done = await service.run(await service.passes.prepare(generation, data))
    if service.settings.scope != "off":
        prediction = done.prediction
        scope = await service.off_loop(generation.gallery.scope, prediction.prepared.radiograph, prediction.embedding_D)
        if not scope.in_scope:
            raise OutOfScopeError(f"The radiograph {scope.explanation}")
    return done.prediction


def _view(source: Source, prediction: Prediction, number: int) -> _View:
    cam, prepared = prediction.cam(), prediction.prepared
    without_pixels = replace(prepared.radiograph, pixels=NO_PIXELS)
    return _View(
        source,
        replace(prediction, prepared=replace(prepared, radiograph=without_pixels, pixels_1SS=NO_PIXELS)),
        draw_picture(cam, prepared.radiograph, number),
        tuple(find_regions(cam)),
    )


def _finding(generation: Generation, study_uid: str, judged: _Judged) -> StudyFinding:
    study = generation.predictor.predict_study([view.prediction for view in judged.views])
    radiographs = [
        RadiographFinding(view.source, view.picture, view.regions, view.prediction.probability, weight)
        for view, weight in zip(judged.views, study.weights, strict=True)
    ]
    return StudyFinding(
        study_uid,
        study.probability,
        study.label,
        study.decision,
        study.threshold,
        generation.predictor.manifest.id,
        CODE_VERSION,
        tuple(radiographs),
        tuple(judged.left_out),
        judged.more_left_out,
    )
