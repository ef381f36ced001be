"""STOW-RS endpoint (PS3.18 10.5): store the studies that archives and modalities send and queue their analysis.

The reply is sent when every radiograph is safe on disk; `/jobs` reports the progress of the analysis.
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
from pacs.multipart import DICOM
from pacs.queue.errors import OtherContentError, OtherPatientError, SpoolFullError
from pacs.queue.job import Job
from xray.errors import InputError
from xray.images.dicom.tags import Identity
from xray.images.dicom.values import UID_PATTERN

DICOM_JSON = "application/dicom+json"
MAX_INSTANCES = 1000
"""Maximum number of instances in one request; a larger study needs several requests."""
CANNOT_UNDERSTAND, OUT_OF_RESOURCES, OTHER_STUDY = 0xC000, 0xA700, 0xA900
"""Failure reasons of PS3.18 Table I.2-2."""
OTHER_PATIENT, DUPLICATE = OTHER_STUDY, 0x0111
"""Failure reasons for a patient other than the study's, and for a UID that another instance has (PS3.7 C.5.7)."""

router = APIRouter(prefix="/dicom-web", responses=REFUSALS)


@dataclass
class Receipt:
    """Outcome of each instance of a STOW-RS request, for its reply."""

    accepted: list[Dataset] = field(default_factory=list)
    failed: list[Dataset] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    left_alone: Counter[str] = field(default_factory=Counter)

    def accept(self, identity: Identity) -> None:
        """Record an instance of a STOW-RS request as stored."""
        self.accepted.append(_item(identity))

    def fail(self, reason: int, identity: Identity | None = None) -> None:
        """Record an instance of a STOW-RS request as failed, with a failure reason of PS3.18 Table I.2-2."""
        item = _item(identity) if identity else Dataset()
        item.FailureReason = reason
        self.failed.append(item)

    @property
    def status(self) -> HTTPStatus:
        """Status of a STOW-RS reply: 200 if all instances were stored, 202 if some, 409 if none was (PS3.18 10.5.3)."""
        if not self.failed:
            return HTTPStatus.OK
        return HTTPStatus.ACCEPTED if self.accepted else HTTPStatus.CONFLICT

    def reply(self) -> dict[str, Any]:
        """Return the STOW-RS reply, the Store Instances Response Module, as DICOM JSON."""
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
    """Store instances of any studies by STOW-RS. Radiographs are analyzed; others are accepted but not analyzed."""
    return await _store(request, predictor, hospital, None)


@router.post("/studies/{study_uid}", response_class=Response)
async def store_in_study(
    study_uid: str, request: Request, predictor: PredictorDep, hospital: HospitalDep, caller: CallerDep
) -> Response:
    """Store instances of one study by STOW-RS; instances of other studies are rejected."""
    if not UID_PATTERN.fullmatch(study_uid):
        raise OutOfRangeError("The path does not contain a valid Study Instance UID.")
    return await _store(request, predictor, hospital, study_uid)


async def _store(request: Request, predictor: PredictorService, hospital: Hospital, study_uid: str | None) -> Response:
    receipt, settings = Receipt(), predictor.settings
    async with predictor.admission.admit_sender():
        body = limit_body_size(limit_body_pace(request, settings.deadline_seconds), settings, total=False)
        async for data in iterate_related_parts(body, DICOM, settings.max_upload_mib):
            if len(receipt.accepted) + len(receipt.failed) == MAX_INSTANCES:
                raise OutOfRangeError(
                    f"More than {MAX_INSTANCES} instances were sent; send the rest in another request."
                )
            await _store_instance(predictor, hospital, data, study_uid, receipt)
    await hospital.leave_alone(receipt.left_alone)
    if not receipt.accepted and not receipt.failed:
        raise MalformedRequestError("The body has no parts; send each instance as one part.")
    headers = {"X-Jobs": ", ".join(sorted(receipt.jobs))} if receipt.jobs else {}
    return JSONResponse(receipt.reply(), receipt.status, headers, DICOM_JSON)


async def _store_instance(
    predictor: PredictorService, hospital: Hospital, data: bytes, study_uid: str | None, receipt: Receipt
) -> None:
    """Store one instance, or record its failure in the receipt."""
    try:
        identity = await predictor.decoder.identify(data)
    except InputError:
        receipt.fail(CANNOT_UNDERSTAND)
        return
    if study_uid not in (None, identity.study_uid):
        receipt.fail(OTHER_STUDY, identity)
        return
    if identity.skip_reason is not None:
        receipt.left_alone[identity.skip_reason] += 1
    else:
        try:
            checkpoint = predictor.bundle.predictor.manifest.id
            job = await hospital.receive(checkpoint, identity, data, "stow", predictor.decoder.decode)
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
    # Archives send whole studies, including earlier results of this service: skipping those is not a failure.
    receipt.accept(identity)
