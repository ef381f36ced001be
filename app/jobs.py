"""What is known of jobs in, the replies that tell and change it out."""

import asyncio
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict

from app.dependencies import CallerDep, HospitalDep, ServiceDep
from app.errors import ConflictError, OutOfRangeError, UnknownPathError
from app.hospital import Hospital
from app.parameters import require_known_parameters
from app.schemas import NOTICE, REFUSALS
from pacs.job import Job, JobState
from pacs.references import UID as VALID_UID
from xray.dicom_tags import UID

FHIR_JSON = "application/fhir+json"
MAX_JOBS = 100
"""Of one list."""

router = APIRouter(responses=REFUSALS, dependencies=[Depends(require_known_parameters)])


class JobReply(BaseModel):
    """A study on its way.

    `waiting` for its first or its next attempt, which is due then; `running`; `delivered`: the archive was asked and
    has the results; `kept`: the results are here; `refused`: nothing in the study can be judged; `dead`: the attempts
    are used up, and it waits for an operator. `reason` says what went wrong last.
    """

    model_config = ConfigDict(from_attributes=True)

    id: str
    study_uid: str
    checkpoint: str
    archive: str | None
    source: str
    state: JobState
    attempts: int
    due: datetime
    reason: str | None
    created: datetime
    changed: datetime
    notice: str = NOTICE


@router.get("/jobs")
async def jobs(
    hospital: HospitalDep,
    caller: CallerDep,
    response: Response,
    state: Annotated[JobState | None, Query(description="Only these.")] = None,
    study: Annotated[str | None, Query(description="Only those of this Study Instance UID.")] = None,
) -> list[JobReply]:
    """The latest jobs; `X-Left-Alone` counts the instances that none was made for, as `/jobs/left-alone` does."""
    if study is not None and not UID.fullmatch(study):
        raise OutOfRangeError("study has to be a Study Instance UID.")
    found = await asyncio.to_thread(hospital.jobs.latest, MAX_JOBS, state, study)
    counts = await asyncio.to_thread(hospital.jobs.left_alone)
    if counts:
        response.headers["X-Left-Alone"] = ", ".join(f"{reason}={count}" for reason, count in counts.items())
    return [JobReply.model_validate(job) for job in found]


@router.get("/jobs/left-alone")
async def left_alone(hospital: HospitalDep, caller: CallerDep) -> dict[str, int]:
    """How many instances were accepted and not analyzed, by reason, since the database was made."""
    return await asyncio.to_thread(hospital.jobs.left_alone)


@router.get("/jobs/{job_id}")
async def job(job_id: str, hospital: HospitalDep, caller: CallerDep) -> JobReply:
    """How far a study is."""
    return JobReply.model_validate(await _found(hospital, job_id))


@router.get("/jobs/{job_id}/report", response_class=Response)
async def report(job_id: str, hospital: HospitalDep, caller: CallerDep) -> Response:
    """What was found, as a FHIR R4 DiagnosticReport with its Observations."""
    await _found(hospital, job_id)
    answer = await asyncio.to_thread(hospital.jobs.answer, job_id)
    if answer is None:
        raise UnknownPathError(f"Job {job_id} has no report yet; GET /jobs/{job_id} says how far it is.")
    return Response(answer, media_type=FHIR_JSON)


@router.post("/jobs/{job_id}/retry")
async def retry(job_id: str, hospital: HospitalDep, caller: CallerDep) -> JobReply:
    """Begin a dead job anew."""
    if (await _found(hospital, job_id)).state != JobState.DEAD:
        raise ConflictError(f"Job {job_id} is not dead; only those are begun anew.")
    after = await asyncio.to_thread(hospital.jobs.retry, job_id)
    hospital.arrived.set()
    return JobReply.model_validate(after)


@router.post("/dicom-web/studies/{study_uid}/analyze", status_code=202)
async def analyze_study(
    study_uid: str,
    response: Response,
    service: ServiceDep,
    hospital: HospitalDep,
    caller: CallerDep,
    pacs: Annotated[str, Query(description="Name of the archive that has the study, and that the results go to.")],
) -> JobReply:
    """Fetch a study from an archive, analyse it and give the results back to that archive."""
    if not VALID_UID.fullmatch(study_uid):
        raise OutOfRangeError("The path names no Study Instance UID.")
    hospital.require_archive(pacs)
    checkpoint = service.generation.predictor.manifest.id
    asked = await asyncio.to_thread(hospital.jobs.request, study_uid, checkpoint, pacs)
    hospital.arrived.set()
    response.headers["Location"] = f"/jobs/{asked.id}"
    return JobReply.model_validate(asked)


async def _found(hospital: Hospital, job_id: str) -> Job:
    found = await asyncio.to_thread(hospital.jobs.find, job_id) if job_id.isalnum() else None
    if found is None:
        raise UnknownPathError("There is no job of that id; GET /jobs lists the latest.")
    return found
