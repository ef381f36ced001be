"""Endpoints of the job queue: list jobs, read their state and report, retry a job, and request an analysis."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict

from app.api.dependencies import CallerDep, HospitalDep, PredictorDep
from app.api.parameters import require_known_parameters
from app.api.schemas import NOTICE, REFUSALS
from app.errors import ConflictError, OutOfRangeError, UnknownPathError
from app.hospital.gateway import Hospital
from pacs.client.qido_json import UID as VALID_UID
from pacs.queue.job import Job, JobState
from xray.images.dicom.values import UID_PATTERN

FHIR_JSON = "application/fhir+json"
MAX_JOBS = 100
"""Maximum number of jobs in one reply of `/jobs`, which lists the latest ones."""

router = APIRouter(responses=REFUSALS, dependencies=[Depends(require_known_parameters)])


class JobReply(BaseModel):
    """A job, as the endpoints of the job queue reply with it; it analyzes one version of a study.

    `state` is one of:

    - `waiting`: the next attempt starts at `due`.
    - `running`: a replica is working on it.
    - `delivered`: the archive has confirmed that it has the results.
    - `kept`: the results stay in this service, because no archive is configured for them.
    - `refused`: nothing in the study can be analyzed.
    - `dead`: all attempts have failed, and an operator has to retry the job.

    `reason` is the latest error, or says which radiographs were left out. Radiographs that arrive after a study was
    analyzed start a new `version`, whose results replace those of the job in `supersedes`. `refused` counts the
    radiographs that were not added to the study, by reason.
    """

    model_config = ConfigDict(from_attributes=True)

    id: str
    study_uid: str
    version: int
    checkpoint: str
    archive: str | None
    fetched_from: str | None
    source: str
    state: JobState
    attempts: int
    due: datetime
    reason: str | None
    created: datetime
    changed: datetime
    supersedes: str | None = None
    superseded_by: str | None = None
    refused: dict[str, int] = {}
    notice: str = NOTICE


@router.get("/jobs")
async def jobs(
    hospital: HospitalDep,
    caller: CallerDep,
    response: Response,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    study: Annotated[str | None, Query(description="Only jobs of the study with this Study Instance UID.")] = None,
) -> list[JobReply]:
    """List the latest jobs. The header `X-Left-Alone` has the counts of `/jobs/left-alone`."""
    if study is not None and not UID_PATTERN.fullmatch(study):
        raise OutOfRangeError("The parameter study has to be a Study Instance UID.")
    found = await asyncio.to_thread(hospital.jobs.repository.latest, MAX_JOBS, state, study)
    counts = await asyncio.to_thread(hospital.jobs.repository.left_alone)
    if counts:
        response.headers["X-Left-Alone"] = ", ".join(f"{reason}={count}" for reason, count in counts.items())
    return await _replies(hospital, found)


@router.get("/jobs/left-alone")
async def left_alone(hospital: HospitalDep, caller: CallerDep) -> dict[str, int]:
    """Reply with the counts of instances accepted but not analyzed, by reason, since the database was created."""
    return await asyncio.to_thread(hospital.jobs.repository.left_alone)


@router.get("/jobs/{job_id}")
async def job(job_id: str, hospital: HospitalDep, caller: CallerDep) -> JobReply:
    """Reply with the state of one job."""
    return await _reply(hospital, await _find_job(hospital, job_id))


@router.get("/jobs/{job_id}/report", response_class=Response)
async def report(job_id: str, hospital: HospitalDep, caller: CallerDep) -> Response:
    """Reply with the result of a job as a FHIR R4 DiagnosticReport with its Observations."""
    job = await _find_job(hospital, job_id)
    answer = await asyncio.to_thread(hospital.jobs.repository.answer, job_id)
    if answer is None:
        says = "was refused and has no report" if job.state == JobState.REFUSED else "has no report yet"
        raise UnknownPathError(f"Job {job_id} {says}; GET /jobs/{job_id} says why.")
    return Response(answer, media_type=FHIR_JSON)


@router.post("/jobs/{job_id}/retry")
async def retry(job_id: str, hospital: HospitalDep, caller: CallerDep) -> JobReply:
    """Retry a dead job for an operator, and reply with its state."""
    reply = await _reply(hospital, await _find_job(hospital, job_id))
    if reply.state != JobState.DEAD:
        raise ConflictError(
            f"Job {job_id} is {reply.state}, and only dead jobs can be retried; send the study again instead."
        )
    if reply.superseded_by is not None:
        raise ConflictError(
            f"Job {reply.superseded_by} has analyzed the same study since then; job {job_id} stays dead."
        )
    after = await asyncio.to_thread(hospital.jobs.retry, job_id)
    hospital.arrived.set()
    return reply if after is None else await _reply(hospital, after)


@router.post("/dicom-web/studies/{study_uid}/analyze", status_code=202)
async def analyze_study(
    study_uid: str,
    response: Response,
    predictor: PredictorDep,
    hospital: HospitalDep,
    caller: CallerDep,
    pacs: Annotated[str, Query(description="Name of the archive that has the study and receives the results.")],
) -> JobReply:
    """Queue a caller's request to fetch a study from an archive, analyze it and send the results back there."""
    if not VALID_UID.fullmatch(study_uid):
        raise OutOfRangeError("The path does not contain a valid Study Instance UID.")
    hospital.require_archive(pacs)
    checkpoint = predictor.bundle.predictor.manifest.id
    asked = await asyncio.to_thread(hospital.jobs.intake.request, study_uid, checkpoint, pacs)
    hospital.arrived.set()
    response.headers["Location"] = f"/jobs/{asked.id}"
    return await _reply(hospital, asked)


async def _find_job(hospital: Hospital, job_id: str) -> Job:
    found = await asyncio.to_thread(hospital.jobs.repository.find, job_id) if job_id.isalnum() else None
    if found is None:
        raise UnknownPathError("There is no job with that ID; GET /jobs lists the latest ones.")
    return found


async def _reply(hospital: Hospital, job: Job) -> JobReply:
    return (await _replies(hospital, [job]))[0]


async def _replies(hospital: Hospital, jobs: Sequence[Job]) -> list[JobReply]:
    relations = await asyncio.to_thread(hospital.jobs.repository.relations, jobs)
    reply = [JobReply.model_validate(job) for job in jobs]
    return [one.model_copy(update=vars(among)) for one, among in zip(reply, relations, strict=True)]
