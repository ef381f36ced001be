"""The radiographs of a job in, what the network finds in its study out."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from app.fetching import LeftOut
from app.generation import Generation
from app.service import Service
from pacs.finding import RadiographFinding, StudyFinding
from pacs.jobs import Instance, Job
from xray.cam import regions, render
from xray.checkpoint import CODE_VERSION
from xray.dicom import header_of
from xray.errors import InputError, OutOfScopeError, XrayError
from xray.predictor import Prediction

OPACITY = 0.5
"""Of the heat at its peak, in the pictures that go back."""


class NothingToJudgeError(XrayError):
    """A study without a radiograph that can be judged."""


@dataclass
class _Judged:
    """The radiographs of a study so far."""

    instances: list[Instance] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


async def analyse(service: Service, job: Job, instances: AsyncIterator[Instance | LeftOut]) -> StudyFinding:
    """Judge a study's radiographs one after the other, and then together; what cannot be judged is left out and named.

    Raises:
        NothingToJudgeError: that is all of them; the message says why.
    """
    generation, judged = service.generation, _Judged()
    async for instance in instances:
        if isinstance(instance, LeftOut):
            judged.left_out.append((instance.instance_uid, instance.reason))
            continue
        try:
            prediction = await _predict(service, generation, instance.data)
        except InputError as error:
            judged.left_out.append((instance.instance_uid, str(error)))
            continue
        judged.instances.append(instance)
        judged.predictions.append(prediction)
    if not judged.predictions:
        reasons = sorted({reason for _, reason in judged.left_out}) or ["The study holds no radiographs (CR or DX)."]
        raise NothingToJudgeError(" ".join(reasons))
    return await service.off_loop(_finding, generation, job.study_uid, judged)


async def _predict(service: Service, generation: Generation, data: bytes) -> Prediction:
    reading = await service.passes.prepare(generation, data)
    done, source = await service.passes.predict(reading)
    service.metrics.answers.labels(source).inc()
    if service.settings.scope != "off":
        prediction = done.prediction
        scope = await service.off_loop(generation.gallery.scope, prediction.prepared.radiograph, prediction.embedding_D)
        if not scope.inside:
            raise OutOfScopeError(f"The radiograph {scope.explanation}")
    return done.prediction


def _finding(generation: Generation, study_uid: str, judged: _Judged) -> StudyFinding:
    study = generation.predictor.judge(judged.predictions)
    radiographs = [
        _radiograph_finding(instance, prediction, weight)
        for instance, prediction, weight in zip(judged.instances, study.radiographs, study.weights, strict=True)
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
    )


def _radiograph_finding(instance: Instance, prediction: Prediction, weight: float) -> RadiographFinding:
    cam = prediction.cam()
    return RadiographFinding(
        header_of(instance.data),
        render(cam, prediction.prepared.radiograph, "overlay", OPACITY),
        tuple(regions(cam)),
        prediction.probability,
        weight,
    )
