"""QIDO-RS search and WADO-RS retrieval (PS3.18 10.4 and 10.6) of the results that this service keeps.

Results repeat data of untrusted senders, so a child process parses them. Results that were delivered to an archive
cannot be retrieved here.
"""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from app.api.dependencies import CallerDep, HospitalDep, ResultsDep
from app.api.qido_query import INSTANCE_KEYS, SERIES_KEYS, STUDY_KEYS, Level, Query, list_supported, parse_query
from app.api.schemas import REFUSALS
from app.api.stow_rs import DICOM_JSON
from app.errors import EngineError, MalformedRequestError, OutOfRangeError, UnknownPathError
from app.hospital.gateway import Hospital
from pacs.errors import ResultsError
from pacs.instance import Instance
from pacs.multipart import encode_files
from pacs.results.dicom_json import DicomJson, dataset_to_json
from pacs.results.rendering.worker_pool import ResultPool
from xray.images.dicom.values import UID_PATTERN

router = APIRouter(prefix="/dicom-web", responses=REFUSALS)

MAX_STUDIES = 100
"""Maximum number of studies in one search, because the results of each have to be decrypted."""
NOT_FUZZY = '299 osteon "The fuzzymatching parameter is not supported. Only literal matching has been performed."'
"""Warning header with the wording of PS3.18 8.3.4.2."""


def _tags(*keywords: str) -> frozenset[int]:
    return frozenset(tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None)


STUDY_TAGS = _tags(*STUDY_KEYS, "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
SERIES_TAGS = _tags(*SERIES_KEYS, "NumberOfSeriesRelatedInstances")
INSTANCE_TAGS = _tags(*INSTANCE_KEYS, "Rows", "Columns")
"""Tags that a query returns at each level if a result has them (PS3.18 Tables 10.6.3-3 to 10.6.3-5)."""
STUDY_FIELDS = STUDY_TAGS | _tags("PatientBirthDate", "PatientSex", "StudyDescription", "IssuerOfPatientID")
SERIES_FIELDS = STUDY_FIELDS | SERIES_TAGS | _tags("SeriesDate", "SeriesTime", "Manufacturer", "BodyPartExamined")
"""Tags that `includefield` can add at the levels of study and series."""


@dataclass(frozen=True)
class KeptResults:
    """The results that this service keeps because no archive is configured for them, for QIDO-RS and WADO-RS."""

    pool: ResultPool
    hospital: Hospital

    async def files(self, study_uid: str, *, earlier: bool = False) -> list[Instance]:
        """Return the kept results of a study's latest version, to search or retrieve; `earlier` adds those it replaced.

        Raises:
            OutOfRangeError: the UID is invalid.
        """
        if not UID_PATTERN.fullmatch(study_uid):
            raise OutOfRangeError("The path does not contain a valid Study Instance UID.")
        return await asyncio.to_thread(self.hospital.jobs.repository.kept_results, study_uid, earlier=earlier)

    async def described(self, study_uid: str) -> list[DicomJson]:
        """Return the tags of each kept result for QIDO-RS or WADO-RS, without pixels and wrongly encoded text.

        Raises:
            EngineError: a result cannot be described.
        """
        try:
            return [await self.pool.to_json(each.data) for each in await self.files(study_uid)]
        except ResultsError as error:
            raise EngineError("The metadata cannot be read; retrieve the files of the study instead.") from error


async def kept_results(pool: ResultsDep, hospital: HospitalDep, caller: CallerDep) -> KeptResults:
    """Return the kept results that QIDO-RS searches and WADO-RS retrieves, for an authenticated caller."""
    return KeptResults(pool, hospital)


KeptDep = Annotated[KeptResults, Depends(kept_results)]


@router.get("/studies")
async def studies(request: Request, kept: KeptDep) -> Response:
    """Answer a QIDO-RS search with the studies in `StudyInstanceUID` that have kept results and match the keys."""
    return await _search(request, kept, "study")


@router.get("/series")
async def all_series(request: Request, kept: KeptDep) -> Response:
    """Answer a QIDO-RS search with the series of the studies in `StudyInstanceUID`, if they match the other keys."""
    return await _search(request, kept, "series")


@router.get("/instances")
async def all_instances(request: Request, kept: KeptDep) -> Response:
    """Answer a QIDO-RS search with the results of the studies in `StudyInstanceUID`, if they match the other keys."""
    return await _search(request, kept, "instance")


@router.get("/studies/{study_uid}/series")
async def series(study_uid: str, request: Request, kept: KeptDep) -> Response:
    """Answer a QIDO-RS search with the series of a study: one for each kind of result."""
    return await _search(request, kept, "series", study_uid)


@router.get("/studies/{study_uid}/instances")
async def instances(study_uid: str, request: Request, kept: KeptDep) -> Response:
    """Answer a QIDO-RS search with the results of a study."""
    return await _search(request, kept, "instance", study_uid)


@router.get("/studies/{study_uid}/series/{series_uid}/instances")
async def instances_of_series(study_uid: str, series_uid: str, request: Request, kept: KeptDep) -> Response:
    """Answer a QIDO-RS search with the results of a series."""
    return await _search(request, kept, "instance", study_uid, series_uid)


@router.get("/studies/{study_uid}/metadata")
async def metadata(study_uid: str, kept: KeptDep) -> Response:
    """Answer a WADO-RS request for metadata with all tags of a study's results except the pixels."""
    return _json_response(await kept.described(study_uid))


@router.get("/studies/{study_uid}")
async def study(study_uid: str, kept: KeptDep) -> Response:
    """Answer a WADO-RS request with the results of a study as files."""
    return _multipart_response(await kept.files(study_uid))


@router.get("/studies/{study_uid}/series/{series_uid}")
async def one_series(study_uid: str, series_uid: str, kept: KeptDep) -> Response:
    """Answer a WADO-RS request with the results of a series as files."""
    found = await kept.files(study_uid, earlier=True)
    return _multipart_response([each for each in found if each.series_uid == series_uid])


@router.get("/studies/{study_uid}/series/{series_uid}/instances/{instance_uid}")
async def instance(study_uid: str, series_uid: str, instance_uid: str, kept: KeptDep) -> Response:
    """Answer a WADO-RS request with one result as a file."""
    found = await kept.files(study_uid, earlier=True)
    return _multipart_response(
        [each for each in found if (each.series_uid, each.instance_uid) == (series_uid, instance_uid)]
    )


async def _search(
    request: Request, kept: KeptResults, level: Level, study_uid: str | None = None, series_uid: str | None = None
) -> Response:
    """Answer a query at one level, for the study in the path or for the studies that the query names."""
    query = parse_query(request.query_params.multi_items(), level)
    found = [each for uid in _studies(query, level, study_uid) for each in await kept.described(uid)]

    def search() -> list[DicomJson]:
        datasets = [Dataset.from_json(each) for each in found]
        _summarize(datasets)
        wanted = [each for each in datasets if series_uid in (None, each.SeriesInstanceUID) and query.matches(each)]
        return list(query.page([dataset_to_json(each, _fields(query, level)) for each in _each_once(wanted, level)]))

    reply = _json_response(await asyncio.to_thread(search))  # off the event loop, because many results take long
    if query.fuzzy:
        reply.headers["Warning"] = NOT_FUZZY
    return reply


def _studies(query: Query, level: Level, study_uid: str | None) -> Iterable[str]:
    if study_uid is not None:
        return [study_uid]
    if query.study_uids is None:
        raise MalformedRequestError(
            "The query names no study. Results are encrypted by study: give StudyInstanceUID, alone or with "
            f"other keys. {list_supported(level)}"
        )
    if len(query.study_uids) > MAX_STUDIES:
        raise MalformedRequestError(f"StudyInstanceUID names more than {MAX_STUDIES} studies; ask for fewer at once.")
    return sorted(query.study_uids)


def _summarize(datasets: list[Dataset]) -> None:
    """Add the attributes of a study and a series that depend on all of their results."""
    for dataset in datasets:
        study = [each for each in datasets if each.StudyInstanceUID == dataset.StudyInstanceUID]
        dataset.ModalitiesInStudy = sorted({each.Modality for each in study})
        dataset.NumberOfStudyRelatedSeries = len({each.SeriesInstanceUID for each in study})
        dataset.NumberOfStudyRelatedInstances = len(study)
        series = [each for each in study if each.SeriesInstanceUID == dataset.SeriesInstanceUID]
        dataset.NumberOfSeriesRelatedInstances = len(series)


def _each_once(datasets: list[Dataset], level: Level) -> Iterable[Dataset]:
    """Yield one result for each study, series or instance."""
    keyword = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}[level]
    return {each[keyword].value: each for each in datasets}.values()


def _fields(query: Query, level: Level) -> frozenset[int] | None:
    """Return the tags to reply with; None for all."""
    usual = {"study": STUDY_TAGS, "series": SERIES_TAGS, "instance": INSTANCE_TAGS}[level]
    if level == "instance":
        return None if query.fields is None else usual | query.fields
    possible = STUDY_FIELDS if level == "study" else SERIES_FIELDS
    return possible if query.fields is None else usual | (possible & query.fields)


def _json_response(found: list[DicomJson]) -> Response:
    """Build a DICOM JSON response; 204 if there are no results, as PS3.18 10.6.3 requires."""
    return Response(json.dumps(found), media_type=DICOM_JSON) if found else Response(status_code=204)


def _multipart_response(found: list[Instance]) -> Response:
    if not found:
        raise UnknownPathError("There are no such results here; results that were delivered are in the archive.")
    content_type, body = encode_files(each.data for each in found)
    return Response(body, media_type=content_type)
