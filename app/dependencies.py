"""What the routes ask for, by name."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Query, Request

from app.errors import OutOfRangeError
from app.service import Service
from app.uploads import Upload, read_uploads
from xray.gallery import Wanted
from xray.predictor import StudyPrediction


@dataclass(frozen=True)
class AnsweredStudy:
    """The uploads of a request and what one pass says about them, in the same order."""

    uploads: list[Upload]
    prediction: StudyPrediction


def service(request: Request) -> Service:
    running: Service = request.app.state.service
    return running


ServiceDep = Annotated[Service, Depends(service)]


async def study(request: Request, service: ServiceDep) -> AsyncIterator[AnsweredStudy]:
    """Take a place, read the body, predict; the place is free again when the reply is on its way."""
    with service.places.take():
        async with service.deadline():
            uploads = await read_uploads(request, service.settings)
            prediction = await service.predict(uploads)
        yield AnsweredStudy(uploads, prediction)


def wanted(
    service: ServiceDep,
    k: Annotated[int, Query(ge=1, description="How many neighbors at most.")] = 5,
    body_part: Annotated[str | None, Query(description="Only this one, e.g. XR_ELBOW.")] = None,
    label: Annotated[Literal["normal", "abnormal"] | None, Query(description="Only these.")] = None,
    exclude_study: Annotated[
        str | None, Query(description="Leave this out, e.g. XR_ELBOW/patient04989/study1.")
    ] = None,
) -> Wanted:
    """The neighbors that the query string asks for."""
    if k > service.settings.max_neighbors:
        raise OutOfRangeError(f"k is {k}; ask for at most {service.settings.max_neighbors} neighbors.")
    if body_part is not None:
        service.gallery.require_body_part(body_part)
    return Wanted(k, body_part, label, exclude_study)


StudyDep = Annotated[AnsweredStudy, Depends(study)]
WantedDep = Annotated[Wanted, Depends(wanted)]
