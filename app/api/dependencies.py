"""FastAPI dependencies of the routes: the parts of the replica, authentication, parameters and the prediction.

The functions are coroutines even if they await nothing: FastAPI runs plain functions in threads, which would compete
with the engine for the cores.
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
from app.hospital.gateway import Hospital, require_configured
from app.inference.model_bundle import ModelBundle
from app.inference.predictor_service import PredictorService
from app.inference.timing import Stages
from app.runtime.health import ReplicaHealth
from app.runtime.metrics import Metrics
from pacs.results.rendering.worker_pool import ResultPool
from xray.gallery.gallery import NeighborQuery
from xray.mura.studies import study_key
from xray.network.ood import Scope
from xray.predictor import StudyPrediction
from xray.types import Label

STUDY_FORM = re.compile(r"(?:.*/)?(?P<body_part>XR_\w+)/(?P<patient>patient\w+)/(?P<study>study[^\W_]+)(?:_\w+)?/?")
"""A study's key, or the path of one of its radiographs, as written in replies."""
REFERENCE_FORM = re.compile(r"(?:[\w-]+/)?(?P<study>[0-9a-f]{32})(?:/[0-9a-f]{32})?")
"""The same for a gallery that was built from an archive, where pseudonyms replace the UIDs."""


@dataclass(frozen=True)
class PredictedStudy:
    """The uploads of a request and their predictions, in the same order, as a route's dependency gives them to it.

    Attributes:
        scopes: how far each radiograph is from the training data; empty if the check is off.
        bundle: the artifacts that made the predictions.
    """

    uploads: list[Upload]
    prediction: StudyPrediction
    scopes: tuple[Scope, ...]
    bundle: ModelBundle
    stages: Stages

    @property
    def checkpoint(self) -> str:
        """ID of the checkpoint that made the predictions of a route's request."""
        return self.bundle.predictor.manifest.id


async def predictor_service(request: Request) -> PredictorService:
    """Give a route the predictor of the replica."""
    running: PredictorService = request.app.state.replica.predictor
    return running


async def health(request: Request) -> ReplicaHealth:
    """Give a route the health of the replica."""
    running: ReplicaHealth = request.app.state.replica.health
    return running


async def metrics(request: Request) -> Metrics:
    """Give a route the metrics of the replica."""
    running: Metrics = request.app.state.replica.metrics
    return running


async def results(request: Request) -> ResultPool:
    """Give a route the replica's pool of processes that render and read results."""
    running: ResultPool = request.app.state.replica.results
    return running


async def optional_hospital(request: Request) -> Hospital | None:
    """Give a route the replica's gateway to the hospital; None if none is configured."""
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
        float | None,
        Header(gt=0, allow_inf_nan=False, description="Milliseconds after which the caller stops waiting."),
    ] = None,
) -> Callable[..., AbstractAsyncContextManager[PredictedStudy]]:
    """Give a route, as its dependency, the context manager that reads the body and predicts.

    The route enters it after it has checked its options.

    Raises:
        OutOfRangeError: the header with the deadline is sent more than once.
    """
    if len(request.headers.getlist("x-deadline-ms")) > 1:
        raise OutOfRangeError("The header X-Deadline-Ms was sent more than once; send it once.")
    seconds = min((x_deadline_ms or math.inf) / 1000, predictor.settings.deadline_seconds)
    return partial(_predict_uploads, request, predictor, seconds)


async def require_capacity(predictor: PredictorDep) -> None:
    """Reject a route's request if the replica is overloaded, before its options are read, so that rejecting is cheap.

    Raises:
        OverloadedError: the predicted wait is too long; the error says when to retry.
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
    """Acquire a permit, read the body and predict; the permit is released after the reply is built.

    Args:
        seconds: time left until the deadline.
        max_files: limit on files, for an endpoint that takes fewer than the settings allow.
        threshold: name of the threshold for the label.
    """
    size, stages = announced_size(request, predictor.settings), request.state.stages
    with predictor.admission.admit(size, seconds) as permit:
        async with deadline(seconds), cancel_on_disconnect(request) as body_is_read:
            with stages.measure("read"):
                uploads = await read_uploads(request, predictor.settings, max_files or predictor.settings.max_files)
            permit.radiographs = len(uploads)
            body_is_read()
            bundle = predictor.bundle
            predictions = await predictor.predict(bundle, [each.data for each in uploads], stages, permit)
            scopes = await predictor.scopes(bundle, predictions)
            study = bundle.predictor.predict_study(predictions, threshold)
            yield PredictedStudy(uploads, study, scopes, bundle, stages)


async def threshold_name(
    predictor: PredictorDep,
    threshold: Annotated[
        str, Query(description="Name of one of the checkpoint's thresholds; `/info` lists them.")
    ] = "default",
) -> str:
    """Give a route, as its dependency, the query string's threshold name, checked against the checkpoint in use."""
    predictor.bundle.predictor.find_threshold(threshold)
    return threshold


class NeighborParameters(BaseModel):
    """Query-string parameters that select neighbors, as they are passed to the dependency of a route."""

    k: int = Field(5, ge=1, description="Maximum number of neighbors.")
    body_part: str | None = Field(None, description="Only neighbors of this body part, such as XR_ELBOW.")
    label: Label | None = Field(None, description="Only these.")
    exclude_study: str | None = Field(None, description="Study to leave out, such as XR_ELBOW/patient04989/study1.")
    per_study: int | None = Field(None, ge=1, description="Maximum number of neighbors from one study.")
    below: float | None = Field(
        None,
        gt=-1,
        le=1,
        allow_inf_nan=False,
        description="Leave out near-duplicates: entries of at least this similarity.",
    )


async def neighbor_query(predictor: PredictorDep, asked: Annotated[NeighborParameters, Query()]) -> NeighborQuery:
    """Give a route, as its dependency, the query for neighbors, with the values in the query string checked.

    Raises:
        OutOfRangeError: k is over the limit, or `exclude_study` is not a study.
        InputError: the gallery has no such body part.
    """
    if asked.k > predictor.settings.max_neighbors:
        raise OutOfRangeError(f"k is {asked.k}; ask for at most {predictor.settings.max_neighbors} neighbors.")
    if asked.body_part is not None:
        predictor.bundle.gallery.require_body_part(asked.body_part)
    study = _study_key(asked.exclude_study)
    return NeighborQuery(asked.k, asked.body_part, asked.label, study, asked.per_study, asked.below)


def _study_key(written: str | None) -> str | None:
    if written is None:
        return None
    if reference := REFERENCE_FORM.fullmatch(written):
        return reference["study"]
    parts = STUDY_FORM.fullmatch(written)
    if parts is None:
        raise OutOfRangeError(
            "exclude_study is not the key of a study; write it like XR_ELBOW/patient04989/study1, or as ARCHIVE/STUDY."
        )
    return study_key(parts["body_part"], parts["patient"], parts["study"])


async def require_administrator(
    request: Request, predictor: PredictorDep, authorization: Annotated[str, Header(description="`Bearer TOKEN`")] = ""
) -> None:
    """Let a route's caller pass only with the administrator's token or, if no token is set, from this machine.

    Raises:
        NotAllowedError: the token is wrong, or the caller is remote.
    """
    token = predictor.settings.admin_token
    if token is None:
        if request.client is None or not ip_address(request.client.host).is_loopback:
            raise NotAllowedError(
                "OSTEON_ADMIN_TOKEN is not set, so only callers on the service's own machine may do this."
            )
    elif not compare_digest(authorization.encode(), f"Bearer {token.get_secret_value()}".encode()):
        raise NotAllowedError("Send the administrator's token as 'Authorization: Bearer TOKEN'.")


async def require_hospital(hospital: OptionalHospitalDep) -> Hospital:
    """Give a route the replica's gateway to the hospital, which must be configured.

    Raises:
        NotConfiguredError: none is configured.
    """
    return require_configured(hospital)


async def authenticated_caller(
    predictor: PredictorDep, given: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))]
) -> str:
    """Give a route the caller's name, checked by HTTP Basic; "anybody" if the settings have no password.

    Raises:
        UnknownCallerError: the name or the password is missing or wrong.
    """
    user, password = predictor.settings.dicomweb_user, predictor.settings.dicomweb_password
    if user is None or password is None:
        return "anybody"
    known = f"{user}:{password.get_secret_value()}".encode()
    if given is None or not compare_digest(f"{given.username}:{given.password}".encode(), known):
        raise UnknownCallerError(
            "Send the name and password that the operator has set, with HTTP Basic authentication."
        )
    return user


HospitalDep = Annotated[Hospital, Depends(require_hospital)]
CallerDep = Annotated[str, Depends(authenticated_caller)]
PredictStudyDep = Annotated[Callable[..., AbstractAsyncContextManager[PredictedStudy]], Depends(predict_study)]
ThresholdDep = Annotated[str, Depends(threshold_name)]
NeighborQueryDep = Annotated[NeighborQuery, Depends(neighbor_query)]
