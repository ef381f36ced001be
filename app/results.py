"""Results that are kept here in, what QIDO-RS and WADO-RS (PS3.18 10.4, 10.6) say of them out.

Only results that no archive is to have are here; those that were delivered are asked of the archive.
"""

import asyncio
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydicom import Dataset

from app.dependencies import CallerDep, HospitalDep
from app.errors import UnknownPathError
from app.hospital import Hospital
from app.schemas import REFUSALS
from app.stow import DICOM, DICOM_JSON
from pacs.job import Instance
from xray.dicom import dataset_of

router = APIRouter(prefix="/dicom-web", responses=REFUSALS)

STUDY_TAGS = ("StudyDate", "StudyTime", "AccessionNumber", "PatientName", "PatientID", "StudyInstanceUID", "StudyID")
SERIES_TAGS = ("Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber")
INSTANCE_TAGS = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns")
"""What a query returns of each level, as far as a result has it (PS3.18 Tables 10.6.3-3 to 10.6.3-5)."""


@router.get("/studies")
async def studies(request: Request, hospital: HospitalDep, caller: CallerDep) -> Response:
    """The study that `StudyInstanceUID` names, if results of it are here."""
    asked = request.query_params
    uid = asked.get("StudyInstanceUID") or asked.get("0020000D") or ""
    found = await _kept(hospital, uid)
    return _answer([_tags(found[0], STUDY_TAGS)] if found else [])


@router.get("/studies/{study_uid}/series")
async def series(study_uid: str, hospital: HospitalDep, caller: CallerDep) -> Response:
    """A series for each kind of result."""
    return _answer([_tags(each, STUDY_TAGS + SERIES_TAGS) for each in await _kept(hospital, study_uid)])


@router.get("/studies/{study_uid}/instances")
async def instances(study_uid: str, hospital: HospitalDep, caller: CallerDep) -> Response:
    """The results of a study."""
    tags = STUDY_TAGS + SERIES_TAGS + INSTANCE_TAGS
    return _answer([_tags(each, tags) for each in await _kept(hospital, study_uid)])


@router.get("/studies/{study_uid}/metadata")
async def metadata(study_uid: str, hospital: HospitalDep, caller: CallerDep) -> Response:
    """All tags of the results of a study but the pixels."""
    found = await _kept(hospital, study_uid)
    return _answer([_without_pixels(each).to_json_dict() for each in found])


@router.get("/studies/{study_uid}")
async def study(study_uid: str, hospital: HospitalDep, caller: CallerDep) -> Response:
    """The results of a study as files."""
    return _files(await _results(hospital, study_uid))


@router.get("/studies/{study_uid}/series/{series_uid}")
async def one_series(study_uid: str, series_uid: str, hospital: HospitalDep, caller: CallerDep) -> Response:
    """The results of a series as files."""
    found = await _results(hospital, study_uid, earlier=True)
    return _files([each for each in found if each.series_uid == series_uid])


@router.get("/studies/{study_uid}/series/{series_uid}/instances/{instance_uid}")
async def instance(
    study_uid: str, series_uid: str, instance_uid: str, hospital: HospitalDep, caller: CallerDep
) -> Response:
    """One result as a file."""
    found = await _results(hospital, study_uid, earlier=True)
    return _files([each for each in found if (each.series_uid, each.instance_uid) == (series_uid, instance_uid)])


async def _results(hospital: Hospital, study_uid: str, *, earlier: bool = False) -> list[Instance]:
    """Those of the study's latest answer; who asks by a UID is given what was replaced, too."""
    return await asyncio.to_thread(hospital.jobs.kept_results, study_uid, earlier=earlier)


async def _kept(hospital: Hospital, study_uid: str) -> list[Dataset]:
    return [dataset_of(each.data) for each in await _results(hospital, study_uid)]


def _tags(dataset: Dataset, keywords: tuple[str, ...]) -> dict[str, Any]:
    chosen = Dataset()
    for keyword in keywords:
        if keyword in dataset:
            chosen[keyword] = dataset[keyword]
    return dict(chosen.to_json_dict())


def _without_pixels(dataset: Dataset) -> Dataset:
    if "PixelData" in dataset:
        del dataset.PixelData
    return dataset


def _answer(found: list[dict[str, Any]]) -> Response:
    """204 where there is nothing, as PS3.18 asks for."""
    return JSONResponse(found, media_type=DICOM_JSON) if found else Response(status_code=204)


def _files(found: list[Instance]) -> Response:
    if not found:
        raise UnknownPathError("No results of that are here; those that were delivered are with the archive.")
    boundary = uuid4().hex
    parts = [
        f"--{boundary}\r\nContent-Type: {DICOM}\r\nContent-Length: {len(each.data)}\r\n\r\n".encode()
        + each.data
        + b"\r\n"
        for each in found
    ]
    content_type = f'multipart/related; type="{DICOM}"; boundary={boundary}'
    return Response(b"".join(parts) + f"--{boundary}--\r\n".encode(), media_type=content_type)
