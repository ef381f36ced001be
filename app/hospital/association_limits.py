"""Limits on the memory and time that callers of the DICOM node can use: associations, PDUs, data sets and seconds.

pynetdicom has no such limits while it receives data, so this module replaces its classes for one association.
"""

import logging
import threading
import time
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from socket import SHUT_RDWR
from typing import Any

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.events import Event
from pynetdicom.transport import RequestHandler

logger = logging.getLogger(__name__)

MEBIBYTE = 1 << 20
MAX_PDU_BYTES = MEBIBYTE
"""Size limit of any PDU. The negotiated size covers data only, and a request with 128 contexts has 300 KB."""
MAX_COMMAND_BYTES = 64 << 10
"""Size limit of a message's command set, which usually has a few hundred bytes."""
PDU_SECONDS = 30.0
"""Time from the first byte of a PDU to its last, in seconds."""
POLL_SECONDS = 0.5
"""Interval at which an association that waits for data checks whether it was ended, in seconds."""
READ_BYTES = 64 << 10
"""Bytes to read from a socket at a time."""
MAX_QUEUED_MESSAGES = 2
"""Maximum number of messages waiting for a response; PS3.7 D.3.3.3 allows more only if both sides agree."""
SILENT_SECONDS = 2.0
"""Time without a complete message after which an association may be ended for a new one, in seconds."""
INVALID_PDU = "Evt19"
"""Event of the DICOM upper layer that aborts an association (PS3.8 Table 9-5)."""


@dataclass(frozen=True)
class NodeLimits:
    """The limits on the DICOM node's associations and memory that the operator sets.

    Attributes:
        associations: maximum number of associations at the same time.
        dataset_bytes: size limit of one instance, in bytes.
        memory_bytes: size limit of all instances being received or stored, in bytes.
    """

    associations: int
    dataset_bytes: int
    memory_bytes: int


class MemoryBudget:
    """A budget of bytes that all associations of the DICOM node share. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._free = limit

    def reserve(self, size: int) -> bool:
        """Reserve bytes of the associations' budget; return False if not enough are left."""
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
            return True

    def release(self, size: int) -> None:
        """Return reserved bytes to the associations' budget."""
        with self._lock:
            self._free += size


class BoundedDataset(BytesIO):
    """A data set that an association receives. Over the limits, its bytes are dropped and the sender gets an error.

    Attributes:
        refusal: why the data set was dropped; None if it was not.
    """

    def __init__(self, limit: int, memory: MemoryBudget) -> None:
        super().__init__()
        self.refusal: str | None = None
        self._limit, self._memory, self._held = limit, memory, 0

    def write(self, data: Any) -> int:
        """Append bytes that the association has received; drop them if the data set is refused."""
        if self.refusal is not None:
            return len(data)
        if self._held + len(data) > self._limit:
            self._refuse(f"The instance has more than {self._limit // MEBIBYTE} MiB.")
        elif not self._memory.reserve(len(data)):
            self._refuse("Too many bytes are being received; send it again.")
        else:
            self._held += len(data)
            super().write(data)
        return len(data)

    def release(self) -> None:
        """Release the data set's share of the associations' memory; the data set is empty afterwards."""
        self._memory.release(self._held)
        self._held = 0
        self.seek(0)
        self.truncate()

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        self.release()

    def __del__(self) -> None:
        self._memory.release(self._held)  # if the association ended within a message


class BoundedMessages(DIMSEServiceProvider):
    """Assembles the messages of an association within the limits.

    Attributes:
        last_message: monotonic time of the latest complete message, or of the start of the association, in seconds.
        serving: whether an instance is being stored, so that the caller has to wait.
    """

    def __init__(self, association: Any, limits: NodeLimits, memory: MemoryBudget) -> None:
        super().__init__(association)
        self.last_message = time.monotonic()
        self.serving = False
        self._limits, self._memory, self._command_bytes = limits, memory, 0

    def is_silent(self) -> bool:
        """Return whether the caller has completed no message for so long that the association may be ended."""
        return not self.serving and time.monotonic() - self.last_message > SILENT_SECONDS

    def receive_primitive(self, primitive: Any) -> None:
        """Add the fragments of a primitive to the current message; abort the association if that fails."""
        if self.message is None:
            self._command_bytes = 0
            self.message = DIMSEMessage()
            self.message.data_set = BoundedDataset(self._limits.dataset_bytes, self._memory)
        for _, fragment in primitive.presentation_data_value_list:
            self._command_bytes += len(fragment) if fragment[:1] and fragment[0] & 1 else 0
        if self._command_bytes > MAX_COMMAND_BYTES or self.msg_queue.qsize() > MAX_QUEUED_MESSAGES:
            self._abort("its caller sent a command that is too long, or too many messages at once")
            return
        try:
            super().receive_primitive(primitive)
        except Exception as error:  # a message may contain anything, and nothing else catches errors in this thread
            self._abort(f"a message cannot be read ({type(error).__name__})")
            return
        if self.message is None:
            self.last_message = time.monotonic()

    def _abort(self, reason: str) -> None:
        logger.warning("An association was aborted: %s.", reason)
        self.message = None
        self.dul.event_queue.put(INVALID_PDU)


class AssociationLimit:
    """Limits the number of associations of the DICOM node."""

    def __init__(self, limit: int) -> None:
        self._limit, self._lock = limit, threading.Lock()

    def make_room(self, server: Any) -> bool:
        """Return whether one more association fits; if necessary, end the one that has been silent for longest."""
        with self._lock:
            active = server.active_associations
            if len(active) < self._limit:
                return True
            silent = [each for each in active if isinstance(each.dimse, BoundedMessages) and each.dimse.is_silent()]
            if not silent:
                return False
            # An association in the middle of a message is ended only if all silent ones are.
            first = min(silent, key=lambda each: (each.dimse.message is not None, each.dimse.last_message))
            logger.warning("The association that had been silent for longest was ended to make room for another.")
            _close_connection(first)
            first.join(SILENT_SECONDS)
            return True


def bounded_handler(limits: NodeLimits) -> type[RequestHandler]:
    """Return the class with which pynetdicom's server handles each connection, within the limits on associations."""
    memory, association_limit = MemoryBudget(limits.memory_bytes), AssociationLimit(limits.associations)

    class BoundedHandler(RequestHandler):
        def handle(self) -> None:
            if not association_limit.make_room(self.server):
                logger.warning("A connection was refused: %d associations are busy.", limits.associations)
                self.server.shutdown_request(self.request)
                return
            super().handle()

        def _create_association(self) -> Any:
            association: Any = super()._create_association()
            association.dimse = BoundedMessages(association, limits, memory)
            association.dul.socket.recv = partial(_receive, association)
            return association

    return BoundedHandler


def end_without_request(event: Event) -> None:
    """End the thread of a connection that was closed before it requested an association."""
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(None)


def _receive(association: Any, size: int) -> bytearray:
    """Read the bytes of a PDU; fewer if the caller has closed the connection.

    Raises:
        OSError: the PDU is too large or too slow, or the association was ended.
    """
    if size > MAX_PDU_BYTES:
        logger.warning("An association was ended: it announced a PDU of %d bytes.", size)
        raise OSError("PDU too large")
    connection, deadline, data = association.dul.socket.socket, time.monotonic() + PDU_SECONDS, bytearray()
    while len(data) < size:
        if association._kill or time.monotonic() > deadline:
            raise TimeoutError("PDU too slow")
        connection.settimeout(POLL_SECONDS)
        try:
            chunk = connection.recv(min(size - len(data), READ_BYTES))
        except TimeoutError:
            continue
        if not chunk:
            break
        data += chunk
    connection.settimeout(PDU_SECONDS)  # for sending
    return data


def _close_connection(association: Any) -> None:
    connection = association.dul.socket.socket
    try:
        if connection is not None:
            connection.shutdown(SHUT_RDWR)
    except OSError:
        return  # the caller has closed it already
