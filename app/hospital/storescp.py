"""`python -m app.hospital.storescp` receives studies by C-STORE, for sites without DICOMweb.

It shares the job database with the service, which analyzes the studies; it does not run the network itself.
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
from app.hospital.gateway import Hospital, load_hospital, require_configured
from app.logging import LOGGING
from app.settings import Settings, read_settings
from pacs.errors import PacsError
from pacs.queue.errors import JobsUnavailableError, OtherContentError, OtherPatientError, SpoolFullError
from xray.errors import InputError, XrayError
from xray.images.decoding.decoder_pool import DecoderPool
from xray.images.dicom.object_kind import PRIVATE_CLASS, STANDARD_ROOT
from xray.network.checkpoint import read_checkpoint_manifest
from xray.sandbox.pool import ProcessNotStartedError

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND, UNABLE = 0x0000, 0xA700, 0xC000, 0xC001
OTHER_PATIENT, DUPLICATE = 0xA900, 0x0111
"""Status codes of a C-STORE response (PS3.4 Table B.2-1 and PS3.7 C.5.7)."""
STORAGE_SERVICE = "1.2.840.10008.4.2"
"""UID of the Storage Service Class."""
STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
"""Prefix of the UIDs of DICOM's storage classes."""
MAX_COMMENT_CHARS = 64
"""Maximum number of characters in an Error Comment, whose value representation is LO."""

# Not __name__, which is __main__ for a program: the logging configuration names only this project's packages.
logger = logging.getLogger("app.hospital.storescp")


class Node:
    """The DICOM node. Handles the requests of associations in their threads; child processes parse the files."""

    def __init__(self, settings: Settings, hospital: Hospital, loop: asyncio.AbstractEventLoop) -> None:
        self._hospital, self._loop = hospital, loop
        self._decoders = DecoderPool(settings.decode_threads, settings.decode_seconds, settings.max_pixels)
        self._checkpoint = read_checkpoint_manifest(settings.checkpoint).id
        self._slots = asyncio.Semaphore(settings.decode_threads)

    def store(self, event: Event) -> int | Dataset:
        """Handle a C-STORE request to the DICOM node. The instance is safe on disk when this returns success."""
        request: Any = event.request
        data_set = request.DataSet
        if data_set.refusal is not None:
            logger.warning("An instance was refused: %s", data_set.refusal)
            return _refusal(OUT_OF_RESOURCES, data_set.refusal)
        messages: Any = event.assoc.dimse
        messages.serving = True
        try:
            stored = self._store_in_turn(event, str(request.AffectedSOPClassUID))
            return asyncio.run_coroutine_threadsafe(stored, self._loop).result()
        finally:
            messages.serving = False
            data_set.release()

    async def _store_in_turn(self, event: Event, sop_class_uid: str) -> int:
        """Store an instance. Only a few are stored at a time, because each is copied several times in memory."""
        async with self._slots:
            return await self._store(event.encoded_dataset(), sop_class_uid)

    async def _store(self, data: bytes, sop_class_uid: str) -> int:
        try:
            identity = await self._decoders.identify(data)
            if identity.skip_reason is not None:
                await self._hospital.leave_alone({identity.skip_reason: 1})
            else:
                await self._hospital.receive(self._checkpoint, identity, data, "store", self._decoders.decode)
        except InputError as error:
            if not sop_class_uid.startswith(STANDARD_ROOT):
                await self._hospital.leave_alone({PRIVATE_CLASS: 1})  # its encoding may be private
                return SUCCESS
            logger.warning("An instance was refused: %s", error)
            return CANNOT_UNDERSTAND
        except OtherContentError:
            return DUPLICATE
        except OtherPatientError:
            return OTHER_PATIENT
        except (SpoolFullError, JobsUnavailableError, ProcessNotStartedError) as error:
            logger.error("An instance could not be accepted now: %s", error)
            return OUT_OF_RESOURCES
        except PacsError as error:
            logger.error("An instance could not be stored: %s", error)
            return UNABLE
        return SUCCESS


def _refusal(status: int, reason: str) -> Dataset:
    reply = Dataset()
    reply.Status, reply.ErrorComment = status, reason[:MAX_COMMENT_CHARS]
    return reply


def accept_unknown_classes(event: Event) -> None:
    """Accept the private and unknown classes that a C-STORE caller proposes, in the transfer syntaxes known here."""
    association = event.assoc
    unknown = _unknown_classes(association)
    further = [
        build_context(uid, [*ALL_TRANSFER_SYNTAXES, *(syntaxes if not uid.startswith(STANDARD_ROOT) else ())])
        for uid, syntaxes in unknown.items()
    ]
    association.acceptor.supported_contexts = [*association.acceptor.supported_contexts, *further]


def serve_unknown_classes(event: Event) -> dict[str, SOPClassCommonExtendedNegotiation]:
    """Make pynetdicom handle C-STORE of private and unknown classes like that of any storage class."""
    served = {}
    for uid in _unknown_classes(event.assoc):
        served[uid] = SOPClassCommonExtendedNegotiation()
        served[uid].sop_class_uid, served[uid].service_class_uid = uid, STORAGE_SERVICE
    return served


def _unknown_classes(association: Any) -> dict[str, list[str]]:
    """Return the proposed storage classes that pynetdicom does not know, with their proposed transfer syntaxes."""
    unknown: dict[str, list[str]] = {}
    for context in association.requestor.requested_contexts:
        uid = context.abstract_syntax or ""
        is_storage = not uid.startswith(STANDARD_ROOT) or uid.startswith(STORAGE_ROOT)
        if is_storage and uid_to_service_class(uid) is ServiceClass:
            unknown.setdefault(uid, []).extend(context.transfer_syntax)
    return unknown


def create_entity(settings: Settings) -> AE:
    """Create the DICOM node's application entity, with its presentation contexts and timeouts."""
    entity = AE(ae_title=settings.dicom_title)
    entity.maximum_pdu_size = settings.dicom_pdu_kib << 10
    entity.maximum_associations = settings.dicom_associations
    entity.network_timeout = entity.acse_timeout = settings.dicom_idle_seconds
    entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax or "", ALL_TRANSFER_SYNTAXES)
    return entity


def listen(entity: AE, node: Node, settings: Settings) -> None:
    """Accept the DICOM node's associations, each in a thread of its own, until the entity is shut down."""
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
    entity._servers.append(server)  # as start_server does, which accepts no request handler
    threading.Thread(target=server.serve_forever, daemon=True).start()


async def serve(settings: Settings) -> None:
    """Run the storage SCP, which receives by C-STORE, until SIGTERM or SIGINT; then abort open associations.

    The callers of aborted associations have to send again.
    """
    hospital, loop = require_configured(load_hospital(settings)), asyncio.get_running_loop()
    entity = create_entity(settings)
    try:
        listen(entity, Node(settings, hospital, loop), settings)
    except OSError as error:
        address = f"{settings.host}:{settings.dicom_port}"
        raise NotConfiguredError(
            f"{address} cannot be opened ({error.strerror}); set OSTEON_DICOM_PORT to another port."
        ) from error
    logger.info("%s accepts studies by C-STORE on %s:%d.", settings.dicom_title, settings.host, settings.dicom_port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    await asyncio.to_thread(entity.shutdown)


def main() -> None:
    """Run the DICOM node from the command line."""
    logging.config.dictConfig(LOGGING)
    # pynetdicom logs what peers send, which includes patients' names.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    _config.LOG_HANDLER_LEVEL = "none"
    try:
        asyncio.run(serve(read_settings()))
    except (XrayError, RequestError) as error:
        sys.exit(f"the DICOM node refuses to start: {error}")


if __name__ == "__main__":
    main()
