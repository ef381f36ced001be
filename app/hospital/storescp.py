"""`python -m app.hospital.storescp` takes studies by C-STORE, for sites without DICOMweb.

It shares the database of jobs with the service, which analyses them; it runs no network itself.
"""

import asyncio
import logging.config
import signal
import sys
import threading
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, _config, build_context, evt
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.service_class import ServiceClass
from pynetdicom.sop_class import Verification, uid_to_service_class  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from app.errors import NotConfiguredError, RequestError
from app.hospital.association_limits import NodeLimits, bounded_handler, end_without_request
from app.hospital.gateway import Hospital, load_hospital, required
from app.logging import LOGGING
from app.settings import Settings, read_settings
from pacs.errors import PacsError
from pacs.queue.errors import JobsUnavailableError, OtherContentError, OtherPatientError, SpoolFullError
from xray.artifact import read_manifest
from xray.errors import InputError, XrayError
from xray.images.decoding.decoder_pool import DecoderPool
from xray.images.dicom.object_kind import PRIVATE_CLASS, STANDARD_ROOT
from xray.network.checkpoint import CheckpointManifest
from xray.sandbox.pool import ProcessNotStartedError

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND, UNABLE = 0x0000, 0xA700, 0xC000, 0xC001
OTHER_PATIENT, DUPLICATE = 0xA900, 0x0111
"""Status of a C-STORE response, PS3.4 Table B.2-1 and PS3.7 C.5.7."""
STORAGE_SERVICE = "1.2.840.10008.4.2"
STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."

# Not __name__: run as a program that is __main__, of which nothing below WARNING is logged.
logger = logging.getLogger("app.hospital.storescp")


class Node:
    """Answers what associations ask, in their threads; files are identified on the loop, in processes apart."""

    def __init__(self, settings: Settings, hospital: Hospital, loop: asyncio.AbstractEventLoop) -> None:
        self._hospital, self._loop = hospital, loop
        self._apart = DecoderPool(settings.decode_threads, settings.decode_seconds, settings.max_pixels)
        self._checkpoint = read_manifest(settings.checkpoint, CheckpointManifest).id
        self._at_once = asyncio.Semaphore(settings.decode_threads)

    def store(self, event: Event) -> int | Dataset:
        """One instance: safe on disk when this returns success."""
        request: Any = event.request
        data_set = request.DataSet
        if data_set.refusal is not None:
            logger.warning("An instance was refused: %s", data_set.refusal)
            return _refused(OUT_OF_RESOURCES, data_set.refusal)
        messages: Any = event.assoc.dimse
        messages.serving = True
        try:
            taken = self._taken_in_turn(event, str(request.AffectedSOPClassUID))
            return asyncio.run_coroutine_threadsafe(taken, self._loop).result()
        finally:
            messages.serving = False
            data_set.let_go()

    async def _taken_in_turn(self, event: Event, sop_class_uid: str) -> int:
        """A file is copied several times on its way, so only a few are on it together."""
        async with self._at_once:
            return await self._take(event.encoded_dataset(), sop_class_uid)

    async def _take(self, data: bytes, sop_class_uid: str) -> int:
        try:
            identity = await self._apart.identify(data)
            if identity.skip_reason is not None:
                await self._hospital.leave_alone({identity.skip_reason: 1})
            else:
                await self._hospital.receive(self._checkpoint, identity, data, "store", self._apart.decode)
        except InputError as error:
            if not sop_class_uid.startswith(STANDARD_ROOT):
                await self._hospital.leave_alone({PRIVATE_CLASS: 1})  # in a private encoding, too
                return SUCCESS
            logger.warning("An instance was refused: %s", error)
            return CANNOT_UNDERSTAND
        except OtherContentError:
            return DUPLICATE
        except OtherPatientError:
            return OTHER_PATIENT
        except (SpoolFullError, JobsUnavailableError, ProcessNotStartedError) as error:
            logger.error("An instance could not be taken now: %s", error)
            return OUT_OF_RESOURCES
        except PacsError as error:
            logger.error("An instance could not be kept: %s", error)
            return UNABLE
        return SUCCESS


def _refused(status: int, reason: str) -> Dataset:
    reply = Dataset()
    reply.Status, reply.ErrorComment = status, reason[:64]
    return reply


def accept_unknown_classes(event: Event) -> None:
    """Offer to take private and unknown storage classes of a caller, in the transfer syntaxes that are known."""
    association = event.assoc
    unknown = _unknown_classes(association)
    further = [
        build_context(uid, [*ALL_TRANSFER_SYNTAXES, *(syntaxes if not uid.startswith(STANDARD_ROOT) else ())])
        for uid, syntaxes in unknown.items()
    ]
    association.acceptor.supported_contexts = [*association.acceptor.supported_contexts, *further]


def serve_unknown_classes(event: Event) -> dict[str, SOPClassCommonExtendedNegotiation]:
    """Have them served as any storage class is."""
    served = {}
    for uid in _unknown_classes(event.assoc):
        served[uid] = SOPClassCommonExtendedNegotiation()
        served[uid].sop_class_uid, served[uid].service_class_uid = uid, STORAGE_SERVICE
    return served


def _unknown_classes(association: Any) -> dict[str, list[str]]:
    """Storage classes that a caller wants and pynetdicom does not know, with the transfer syntaxes that it wants."""
    unknown: dict[str, list[str]] = {}
    for context in association.requestor.requested_contexts:
        uid = context.abstract_syntax or ""
        is_storage = not uid.startswith(STANDARD_ROOT) or uid.startswith(STORAGE_ROOT)
        if is_storage and uid_to_service_class(uid) is ServiceClass:
            unknown.setdefault(uid, []).extend(context.transfer_syntax)
    return unknown


def entity_of(settings: Settings) -> AE:
    """What the node offers to callers, and for how long it waits for them."""
    entity = AE(ae_title=settings.dicom_title)
    entity.maximum_pdu_size = settings.dicom_pdu_kib << 10
    entity.maximum_associations = settings.dicom_associations
    entity.network_timeout = entity.acse_timeout = settings.dicom_idle_seconds
    entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax or "", ALL_TRANSFER_SYNTAXES)
    return entity


def listen(entity: AE, node: Node, settings: Settings) -> None:
    """Answer callers in threads of their own, until the entity is shut down."""
    limits = NodeLimits(settings.dicom_associations, settings.max_upload_bytes, settings.max_inflight_bytes)
    server = entity.make_server(
        (settings.host, settings.dicom_port),
        evt_handlers=[
            (evt.EVT_REQUESTED, accept_unknown_classes),
            (evt.EVT_SOP_COMMON, serve_unknown_classes),
            (evt.EVT_C_STORE, node.store),
            (evt.EVT_CONN_CLOSE, end_without_request),
        ],
        server_class=ThreadedAssociationServer,
        request_handler=bounded_handler(limits),
    )
    entity._servers.append(server)  # as start_server does, which takes no handler of requests
    threading.Thread(target=server.serve_forever, daemon=True).start()


async def serve(settings: Settings) -> None:
    """Listen until a signal comes; associations that are open then are aborted, and their callers send again."""
    hospital, loop = required(load_hospital(settings)), asyncio.get_running_loop()
    entity = entity_of(settings)
    try:
        listen(entity, Node(settings, hospital, loop), settings)
    except OSError as error:
        address = f"{settings.host}:{settings.dicom_port}"
        raise NotConfiguredError(
            f"{address} cannot be opened ({error.strerror}); set OSTEON_DICOM_PORT to another port."
        ) from error
    logger.info("%s takes studies by C-STORE on %s:%d.", settings.dicom_title, settings.host, settings.dicom_port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    await asyncio.to_thread(entity.shutdown)


def main() -> None:
    logging.config.dictConfig(LOGGING)
    # It logs what peers send, patients' names among it.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    _config.LOG_HANDLER_LEVEL = "none"
    try:
        asyncio.run(serve(read_settings()))
    except (XrayError, RequestError) as error:
        sys.exit(f"the DICOM node refuses to start: {error}")


if __name__ == "__main__":
    main()
