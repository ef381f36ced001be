"""`python -m app.dicom_node`: studies by C-STORE in, jobs out, for sites without DICOMweb.

It shares the database of jobs with the service, which analyses them; it runs no network itself.
"""

import asyncio
import logging.config
import signal
import sys

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.events import Event
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from app.errors import RequestError
from app.hospital import Hospital, load_hospital, required
from app.log import LOGGING
from app.settings import Settings, read_settings
from pacs.errors import PacsError
from pacs.job_errors import OtherContentError, OtherPatientError, SpoolFullError
from xray.apart import DecoderProcesses
from xray.artifact import read_manifest
from xray.checkpoint import CheckpointManifest
from xray.errors import InputError, XrayError

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND, UNABLE = 0x0000, 0xA700, 0xC000, 0xC001
OTHER_PATIENT, DUPLICATE = 0xA900, 0x0111
"""Status of a C-STORE response, PS3.4 Table B.2-1 and PS3.7 C.5.7."""

# Not __name__: run as a program that is __main__, of which nothing below WARNING is logged.
logger = logging.getLogger("app.dicom_node")


class Node:
    """Answers what associations ask, in their threads; files are identified on the loop, in processes apart."""

    def __init__(self, settings: Settings, hospital: Hospital, loop: asyncio.AbstractEventLoop) -> None:
        self._hospital, self._loop = hospital, loop
        self._apart = DecoderProcesses(settings.decode_threads, settings.decode_seconds, settings.max_pixels)
        self._checkpoint = read_manifest(settings.checkpoint, CheckpointManifest).id

    def store(self, event: Event) -> int:
        """One instance: safe on disk when this returns success."""
        return asyncio.run_coroutine_threadsafe(self._take(event.encoded_dataset()), self._loop).result()

    async def _take(self, data: bytes) -> int:
        try:
            identity = await self._apart.identify(data)
            if identity.is_radiograph:
                await self._hospital.receive(self._checkpoint, identity, data, "store", self._apart.decode)
        except InputError as error:
            logger.warning("An instance was refused: %s", error)
            return CANNOT_UNDERSTAND
        except OtherContentError:
            return DUPLICATE
        except OtherPatientError:
            return OTHER_PATIENT
        except SpoolFullError:
            return OUT_OF_RESOURCES
        except PacsError as error:
            logger.error("An instance could not be kept: %s", error)
            return UNABLE
        return SUCCESS


async def serve(settings: Settings) -> None:
    """Listen until a signal comes; associations that are open then are let finish."""
    hospital, loop = required(load_hospital(settings)), asyncio.get_running_loop()
    node = Node(settings, hospital, loop)
    entity = AE(ae_title=settings.dicom_title)
    entity.maximum_pdu_size = 0
    entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax or "", ALL_TRANSFER_SYNTAXES)
    entity.start_server((settings.host, settings.dicom_port), block=False, evt_handlers=[(evt.EVT_C_STORE, node.store)])
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
    try:
        asyncio.run(serve(read_settings()))
    except (XrayError, RequestError) as error:
        sys.exit(f"the DICOM node refuses to start: {error}")


if __name__ == "__main__":
    main()
