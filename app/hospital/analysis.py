"""Runs the network on the study of a job and turns the predictions into a finding.

Only one radiograph of a study is in memory at a time. Of the others, a small picture, the heatmap and a few numbers are
kept, so that memory does not grow with the size of the images.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import numpy as np

from app.inference.model_bundle import ModelBundle
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
"""Maximum number of radiographs of a study that are left out by name; the rest is then not examined."""
NO_PIXELS: PixelArray = np.zeros((0, 0), np.uint8)

logger = logging.getLogger(__name__)


class NothingToAnalyzeError(XrayError):
    """The study of a job has no radiograph that can be analyzed."""


@dataclass(frozen=True)
class _AnalyzedRadiograph:
    """The part of a radiograph that is kept after its analysis.

    Attributes:
        prediction: the prediction without the pixels.
    """

    source: Source
    prediction: Prediction
    picture: Picture
    regions: tuple[Region, ...]


@dataclass
class _StudyInProgress:
    """The radiographs of a study that were analyzed or left out so far.

    Attributes:
        pixels: number of pixels of the analyzed radiographs together.
    """

    radiographs: list[_AnalyzedRadiograph] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    more_left_out: bool = False
    pixels: int = 0


async def analyze_study(
    predictor: PredictorService, results: ResultPool, job: Job, instances: AsyncGenerator[Instance]
) -> StudyFinding:
    """Predict the radiographs of a job's study one after the other and pool them; name those that cannot be analyzed.

    Raises:
        NothingToAnalyzeError: none of them can be analyzed; the message says why.
    """
    bundle, study = predictor.bundle, _StudyInProgress()
    async with aclosing(instances):
        async for instance in instances:
            if len(study.left_out) == MAX_LEFT_OUT:
                study.more_left_out = True
                break
            try:
                _require_room(study, predictor.settings)
                prediction = await _predict(predictor, bundle, instance.data)
                source = await _read_source(results, job, instance)
                await _add(predictor, source, prediction, study)
            except InputError as error:
                study.left_out.append((instance.instance_uid, str(error)))
    if not study.radiographs:
        reasons = sorted({reason for _, reason in study.left_out}) or ["The study holds no radiographs (CR or DX)."]
        raise NothingToAnalyzeError(" ".join(reasons))
    return _finding(bundle, job.study_uid, study)


def _require_room(study: _StudyInProgress, settings: Settings) -> None:
    if len(study.radiographs) == settings.max_study_radiographs:
        raise InputError(
            f"The study has more than {settings.max_study_radiographs} radiographs; only those were analyzed."
        )


async def _predict(predictor: PredictorService, bundle: ModelBundle, data: bytes) -> Prediction:
    prediction = (await predictor.run(await predictor.cache.prepare(bundle, data))).prediction
    if predictor.settings.scope != "off":
        scope = await predictor.off_loop(bundle.predictor.scope, prediction)
        if not scope.in_scope:
            raise OutOfScopeError(f"The radiograph {scope.explanation}")
    return prediction


async def _read_source(results: ResultPool, job: Job, instance: Instance) -> Source:
    """Read the attributes that the results copy from a radiograph's header.

    Raises:
        InputError: the attributes cannot be copied, or the file names another study or instance.
    """
    source = await results.source(instance.data)
    if (source.study_uid, source.instance_uid) != (job.study_uid, instance.instance_uid):
        raise UnreadableImageError("The file names more than one study or instance; export it again.")
    if source.not_copied:
        logger.warning(
            "Job %s: %d attributes of an instance are too large, too deep or damaged and are left out: %s.",
            job.id,
            len(source.not_copied),
            ", ".join(source.not_copied),
        )
    return source


async def _add(predictor: PredictorService, source: Source, prediction: Prediction, study: _StudyInProgress) -> None:
    """Add to the study the part of a radiograph that its results need.

    Raises:
        TooManyPixelsError: the radiograph takes the study over the limit on pixels.
    """
    pixels, max_pixels = prediction.prepared.radiograph.pixels.size, predictor.settings.max_study_pixels
    if study.pixels + pixels > max_pixels:
        raise TooManyPixelsError(
            f"The study has more than {max_pixels:,} pixels; only the radiographs before it were analyzed."
        )
    number = len(study.radiographs) + 1
    study.radiographs.append(await predictor.off_loop(_without_pixels, source, prediction, number))
    study.pixels += pixels


def _without_pixels(source: Source, prediction: Prediction, number: int) -> _AnalyzedRadiograph:
    cam, prepared = prediction.cam(), prediction.prepared
    radiograph = replace(prepared.radiograph, pixels=NO_PIXELS)
    return _AnalyzedRadiograph(
        source,
        replace(prediction, prepared=replace(prepared, radiograph=radiograph, pixels_1SS=NO_PIXELS)),
        draw_picture(cam, prepared.radiograph, number),
        tuple(find_regions(cam)),
    )


def _finding(bundle: ModelBundle, study_uid: str, study: _StudyInProgress) -> StudyFinding:
    pooled = bundle.predictor.predict_study([each.prediction for each in study.radiographs])
    radiographs = [
        RadiographFinding(
            each.source, each.picture, each.regions, each.prediction.probability, weight, each.prediction.familiarity
        )
        for each, weight in zip(study.radiographs, pooled.weights, strict=True)
    ]
    return StudyFinding(
        study_uid=study_uid,
        probability=pooled.probability,
        label=pooled.label,
        decision=pooled.decision,
        decision_reason=pooled.decision_reason,
        familiarity=pooled.familiarity,
        threshold=pooled.threshold,
        checkpoint=bundle.predictor.manifest.id,
        version=CODE_VERSION,
        radiographs=tuple(radiographs),
        left_out=tuple(study.left_out),
        more_left_out=study.more_left_out,
    )
