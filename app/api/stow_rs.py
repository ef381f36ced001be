"""Studies as archives and modalities send them (STOW-RS, PS3.18 10.5) in, jobs and a reply out.

The reply is given when every radiograph is safe on disk; what becomes of the study is told by its job.
"""

from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydicom import Dataset

from app.api.dependencies import CallerDep, HospitalDep, PredictorDep
from app.api.multipart_related import iterate_related_parts
from app.api.request_body import limit_body_pace, limit_body_size
from app.api.schemas import REFUSALS
from app.errors import MalformedRequestError, OutOfRangeError
from app.hospital.gateway import Hospital
from app.inference.predictor_service import PredictorService
from pacs.queue.errors import OtherContentError, OtherPatientError, SpoolFullError
from pacs.queue.job import Job
from xray.errors import InputError
from xray.images.dicom.tags import UID, Identity

DICOM, DICOM_JSON = "application/dicom", "application/dicom+json"
MAX_INSTANCES = 1000
"""Of one request; a study of more comes in several."""
CANNOT_UNDERSTAND, OUT_OF_RESOURCES, OTHER_STUDY = 0xC000, 0xA700, 0xA900
"""Failure reasons of PS3.18 Table I.2-2."""
OTHER_PATIENT, DUPLICATE = OTHER_STUDY, 0x0111
"""An instance that contradicts its study, and one whose UID another has (PS3.7 C.5.7)."""

router = APIRouter(prefix="/dicom-web", responses=REFUSALS)


@dataclass
class Receipt:
    """What became of each instance of a request, as its reply tells."""

    accepted: list[Dataset] = field(default_factory=list)
    failed: list[Dataset] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    left_alone: Counter[str] = field(default_factory=Counter)

    def accept(self, identity: Identity) -> None:
        self.accepted.append(_item(identity))

    def fail(self, reason: int, identity: Identity | None = None) -> None:
        item = _item(identity) if identity else Dataset()
        item.FailureReason = reason
        self.failed.append(item)

    @property
    def status(self) -> HTTPStatus:
        if not self.failed:
            return HTTPStatus.OK
        return HTTPStatus.ACCEPTED if self.accepted else HTTPStatus.CONFLICT

    def reply(self) -> dict[str, Any]:
        """The Store Instances Response Module."""
        reply = Dataset()
        reply.ReferencedSOPSequence = self.accepted
        if self.failed:
            reply.FailedSOPSequence = self.failed
        return reply.to_json_dict()


def _item(identity: Identity) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = identity.sop_class_uid, identity.instance_uid
    return item


@router.post("/studies", response_class=Response)
async def store(request: Request, predictor: PredictorDep, hospital: HospitalDep, caller: CallerDep) -> Response:
    """Take instances of any studies: radiographs are analysed, all else is accepted and left alone."""
    return await _store(request, predictor, hospital, None)


@router.post("/studies/{study_uid}", response_class=Response)
async def store_in_study(
    study_uid: str, request: Request, predictor: PredictorDep, hospital: HospitalDep, caller: CallerDep
) -> Response:
    """The same, and instances of other studies fail."""
    if not UID.fullmatch(study_uid):
        raise OutOfRangeError("The path names no Study Instance UID.")
    return await _store(request, predictor, hospital, study_uid)


async def _store(request: Request, predictor: PredictorService, hospital: Hospital, study_uid: str | None) -> Response:
    receipt, settings = Receipt(), predictor.settings
    async with predictor.admission.admit_sender():
        body = limit_body_size(limit_body_pace(request, settings.deadline_seconds), settings, total=False)
        async for data in iterate_related_parts(body, DICOM, settings.max_upload_mib):
            if len(receipt.accepted) + len(receipt.failed) == MAX_INSTANCES:
                raise OutOfRangeError(
                    f"More than {MAX_INSTANCES} instances were sent; send the others in a further request."
                )
            await _store_instance(predictor, hospital, data, study_uid, receipt)
    await hospital.leave_alone(receipt.left_alone)
    if not receipt.accepted and not receipt.failed:
        raise MalformedRequestError("The body has no parts; send each instance as one.")
    headers = {"X-Jobs": ", ".join(sorted(receipt.jobs))} if receipt.jobs else {}
    return JSONResponse(receipt.reply(), receipt.status, headers, DICOM_JSON)


async def _store_instance(
    predictor: PredictorService, hospital: Hospital, data: bytes, study_uid: str | None, receipt: Receipt
) -> None:
    """One instance: made safe, or written down as failed."""
    try:
        identity = await predictor.passes.identify(data)
    except InputError:
        receipt.fail(CANNOT_UNDERSTAND)
        return
    if study_uid not in (None, identity.study_uid):
        receipt.fail(OTHER_STUDY, identity)
        return
    if identity.left_alone is not None:
        receipt.left_alone[identity.left_alone] += 1
    else:
        try:
            checkpoint = predictor.generation.predictor.manifest.id
            job = await hospital.receive(checkpoint, identity, data, "stow", predictor.passes.decode)
        except OtherPatientError:
            receipt.fail(OTHER_PATIENT, identity)
            return
        except OtherContentError:
            receipt.fail(DUPLICATE, identity)
            return
        except SpoolFullError:
            receipt.fail(OUT_OF_RESOURCES, identity)
            return
        receipt.jobs[job.id] = job
    # Archives send whole studies, our own results of an earlier time among them: these are no failure.
    receipt.accept(identity)
