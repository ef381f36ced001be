"""What the routes ask for, by name.

These functions are coroutines though they await nothing: FastAPI sends any other through a thread, twice per request,
on cores that the engine wants.
"""

import math
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from secrets import compare_digest
from typing import Annotated

from fastapi import Depends, Header, Query, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from pydantic import BaseModel, Field

from app.api.timeouts import cancel_on_disconnect, deadline
from app.api.uploads import Upload, announced_size, read_uploads
from app.errors import NotAllowedError, OutOfRangeError, UnknownCallerError
from app.hospital.gateway import Hospital, required
from app.inference.model_bundle import Generation
from app.inference.predictor_service import PredictorService
from app.inference.timing import Stages
from app.runtime.health import ReplicaHealth
from app.runtime.metrics import Metrics
from pacs.results.rendering.worker_pool import ResultPool
from xray.gallery.gallery import Wanted
from xray.mura.studies import study_key
from xray.network.ood import Scope
from xray.predictor import StudyPrediction
from xray.types import Label

STUDY_FORM = re.compile(r"(?:.*/)?(?P<body_part>XR_\w+)/(?P<patient>patient\w+)/(?P<study>study[^\W_]+)(?:_\w+)?/?")
"""A study's key, or a path of the dataset that holds it, as replies write it."""
REFERENCE_FORM = re.compile(r"(?:[\w-]+/)?(?P<study>[0-9a-f]{32})(?:/[0-9a-f]{32})?")
"""A study of a hospital's archive, or the path of one of its radiographs."""


@dataclass(frozen=True)
class PredictedStudy:
    """The uploads of a request and what one pass says about them, in the same order.

    Attributes:
        scopes: how far each is from what can be judged; empty where nobody asked.
        generation: the artifacts that said it.
    """

    uploads: list[Upload]
    prediction: StudyPrediction
    scopes: tuple[Scope, ...]
    generation: Generation
    stages: Stages

    @property
    def checkpoint(self) -> str:
        """Its id."""
        return self.generation.predictor.manifest.id


async def predictor_service(request: Request) -> PredictorService:
    running: PredictorService = request.app.state.replica.predictor
    return running


async def health(request: Request) -> ReplicaHealth:
    running: ReplicaHealth = request.app.state.replica.health
    return running


async def metrics(request: Request) -> Metrics:
    running: Metrics = request.app.state.replica.metrics
    return running


async def results(request: Request) -> ResultPool:
    running: ResultPool = request.app.state.replica.results
    return running


async def optional_hospital(request: Request) -> Hospital | None:
    running: Hospital | None = request.app.state.replica.hospital
    return running


PredictorDep = Annotated[PredictorService, Depends(predictor_service)]
HealthDep = Annotated[ReplicaHealth, Depends(health)]
MetricsDep = Annotated[Metrics, Depends(metrics)]
ResultsDep = Annotated[ResultPool, Depends(results)]
OptionalHospitalDep = Annotated[Hospital | None, Depends(optional_hospital)]


async def predict_study(
    request: Request,
    predictor: PredictorDep,
    x_deadline_ms: Annotated[
        float | None, Header(gt=0, allow_inf_nan=False, description="Milliseconds after which the answer is of no use.")
    ] = None,
) -> Callable[..., AbstractAsyncContextManager[PredictedStudy]]:
    """A function that reads the body and predicts; a route calls it once its options are known to be good."""
    if len(request.headers.getlist("x-deadline-ms")) > 1:
        raise OutOfRangeError("The header X-Deadline-Ms comes more than once; send it once.")
    seconds = min((x_deadline_ms or math.inf) / 1000, predictor.settings.deadline_seconds)
    return partial(_predict_uploads, request, predictor, seconds)


async def require_capacity(predictor: PredictorDep) -> None:
    """Turn callers away where too much is inside, before their options are read: under load most requests end here.

    Raises:
        OverloadedError: says when to come back.
    """
    predictor.admission.require_time(predictor.settings.deadline_seconds)


@asynccontextmanager
async def _predict_uploads(
    request: Request,
    predictor: PredictorService,
    seconds: float,
    max_files: int | None = None,
    threshold: str = "default",
) -> AsyncIterator[PredictedStudy]:
    """Take a place, read the body, predict; the place is free again when the reply is made.

    Args:
        seconds: until the deadline.
        max_files: where an endpoint takes fewer than the settings allow.
        threshold: name of the one that decides.
    """
    size, stages = announced_size(request, predictor.settings), request.state.stages
    with predictor.admission.admit(size, seconds) as place:
        async with deadline(seconds), cancel_on_disconnect(request) as body_is_read:
            with stages.measure("read"):
                uploads = await read_uploads(request, predictor.settings, max_files or predictor.settings.max_files)
            place.radiographs = len(uploads)
            body_is_read()
            generation = predictor.generation
            predictions = await predictor.predict(generation, [each.data for each in uploads], stages, place)
            scopes = await predictor.scopes(generation, predictions)
            study = generation.predictor.judge(predictions, threshold)
            yield PredictedStudy(uploads, study, scopes, generation, stages)


async def threshold_name(
    predictor: PredictorDep,
    threshold: Annotated[
        str, Query(description="A name of the checkpoint's thresholds; `/info` lists them.")
    ] = "default",
) -> str:
    """The threshold that the query string asks for, known to the checkpoint that serves now."""
    predictor.generation.predictor.threshold(threshold)
    return threshold


class NeighborParameters(BaseModel):
    """What a query string may ask of the neighbors."""

    k: int = Field(5, ge=1, description="How many neighbors at most.")
    body_part: str | None = Field(None, description="Only this one, e.g. XR_ELBOW.")
    label: Label | None = Field(None, description="Only these.")
    exclude_study: str | None = Field(None, description="Leave this out, e.g. XR_ELBOW/patient04989/study1.")
    per_study: int | None = Field(None, ge=1, description="At most so many of one study.")
    below: float | None = Field(
        None, gt=-1, le=1, allow_inf_nan=False, description="Leave out what is at least so similar: near-duplicates."
    )


async def neighbor_query(predictor: PredictorDep, asked: Annotated[NeighborParameters, Query()]) -> Wanted:
    """The neighbors that the query string asks for."""
    if asked.k > predictor.settings.max_neighbors:
        raise OutOfRangeError(f"k is {asked.k}; ask for at most {predictor.settings.max_neighbors} neighbors.")
    if asked.body_part is not None:
        predictor.generation.gallery.require_body_part(asked.body_part)
    study = _study_key(asked.exclude_study)
    return Wanted(asked.k, asked.body_part, asked.label, study, asked.per_study, asked.below)


def _study_key(written: str | None) -> str | None:
    if written is None:
        return None
    if reference := REFERENCE_FORM.fullmatch(written):
        return reference["study"]
    parts = STUDY_FORM.fullmatch(written)
    if parts is None:
        raise OutOfRangeError(
            "exclude_study names no study; write it like XR_ELBOW/patient04989/study1, or as ARCHIVE/STUDY."
        )
    return study_key(parts["body_part"], parts["patient"], parts["study"])


async def require_administrator(
    request: Request, predictor: PredictorDep, authorization: Annotated[str, Header(description="`Bearer TOKEN`")] = ""
) -> None:
    """Let an require_administrator pass: whoever has the token, or, where none is set, whoever calls from this machine.

    Raises:
        NotAllowedError: the caller is neither.
    """
    token = predictor.settings.admin_token
    if token is None:
        if request.client is None or not ip_address(request.client.host).is_loopback:
            raise NotAllowedError("Without OSTEON_ADMIN_TOKEN this is for callers on the service's own machine.")
    elif not compare_digest(authorization.encode(), f"Bearer {token.get_secret_value()}".encode()):
        raise NotAllowedError("Send the token of the require_administrator as 'Authorization: Bearer TOKEN'.")


async def require_hospital(hospital: OptionalHospitalDep) -> Hospital:
    """What connects this replica to archives; raises NotConfiguredError where nothing does."""
    return required(hospital)


async def authenticated_caller(
    predictor: PredictorDep, given: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))]
) -> str:
    """The name of the caller who knows the password; anybody where the settings name none.

    Raises:
        UnknownCallerError: name or password are missing or wrong.
    """
    user, password = predictor.settings.dicomweb_user, predictor.settings.dicomweb_password
    if user is None or password is None:
        return "anybody"
    known = f"{user}:{password.get_secret_value()}".encode()
    if given is None or not compare_digest(f"{given.username}:{given.password}".encode(), known):
        raise UnknownCallerError("Send the name and password that the operator has set, by HTTP Basic.")
    return user


HospitalDep = Annotated[Hospital, Depends(require_hospital)]
CallerDep = Annotated[str, Depends(authenticated_caller)]
PredictStudyDep = Annotated[Callable[..., AbstractAsyncContextManager[PredictedStudy]], Depends(predict_study)]
ThresholdDep = Annotated[str, Depends(threshold_name)]
NeighborQueryDep = Annotated[Wanted, Depends(neighbor_query)]
