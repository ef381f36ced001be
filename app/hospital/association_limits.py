"""Limits on what callers of the DICOM node can make it hold: associations, PDUs, data sets and time.

pynetdicom limits none of these while it receives them, so this module replaces its classes for one association.
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
"""Limit of any PDU. The size announced in the association covers only data; a request of 128 contexts has 300 KB."""
MAX_COMMAND_BYTES = 64 << 10
"""Limit of the command set of a message, which usually has a few hundred bytes."""
PDU_SECONDS = 30.0
"""Time from the first byte of a PDU to its last, in seconds."""
POLL_SECONDS = 0.5
"""Interval at which an association that waits for bytes checks whether it was ended, in seconds."""
READ_BYTES = 64 << 10
"""Bytes to read from a socket at a time."""
MAX_QUEUED_MESSAGES = 2
"""Messages that may wait for their response; PS3.7 D.3.3.3 allows more only if both sides agree."""
SILENT_SECONDS = 2.0
"""Time without a complete message after which an association may be ended for a new one, in seconds."""
INVALID_PDU = "Evt19"
"""Event of the DICOM upper layer that aborts an association (PS3.8 Table 9-5)."""


@dataclass(frozen=True)
class NodeLimits:
    """Limits that the operator sets.

    Attributes:
        associations: associations at the same time.
        dataset_bytes: bytes of one instance.
        memory_bytes: bytes of all instances that are being received or stored.
    """

    associations: int
    dataset_bytes: int
    memory_bytes: int


class MemoryBudget:
    """The bytes that all associations may hold together. Safe to use from any thread."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._free = limit

    def reserve(self, size: int) -> bool:
        """Reserve bytes, or return False if there are not enough."""
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
            return True

    def release(self, size: int) -> None:
        """Give back bytes."""
        with self._lock:
            self._free += size


class BoundedDataset(BytesIO):
    """A data set that is being received. Beyond the limits its bytes are dropped, and the sender is told at the end.

    Attributes:
        refusal: why the data set was dropped; None while it is complete.
    """

    def __init__(self, limit: int, memory: MemoryBudget) -> None:
        super().__init__()
        self.refusal: str | None = None
        self._limit, self._memory, self._held = limit, memory, 0

    def write(self, data: Any) -> int:
        """Append bytes, or drop them once the data set is refused."""
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
        """Give the memory back; the data set is empty afterwards."""
        self._memory.release(self._held)
        self._held = 0
        self.seek(0)
        self.truncate()

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        self.release()

    def __del__(self) -> None:
        self._memory.release(self._held)  # of an association that ended within a message


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
        """Whether the caller has completed no message for so long that the association may be ended."""
        return not self.serving and time.monotonic() - self.last_message > SILENT_SECONDS

    def receive_primitive(self, primitive: Any) -> None:
        """Add the fragments of a primitive to the present message; abort the association if that fails."""
        if self.message is None:
            self._command_bytes = 0
            self.message = DIMSEMessage()
            self.message.data_set = BoundedDataset(self._limits.dataset_bytes, self._memory)
        for _, fragment in primitive.presentation_data_value_list:
            self._command_bytes += len(fragment) if fragment[:1] and fragment[0] & 1 else 0
        if self._command_bytes > MAX_COMMAND_BYTES or self.msg_queue.qsize() > MAX_QUEUED_MESSAGES:
            self._abort("its caller sends too long commands or too many messages at once")
            return
        try:
            super().receive_primitive(primitive)
        except Exception as error:  # a message may hold anything, and nothing catches errors in this thread
            self._abort(f"a message cannot be read ({type(error).__name__})")
            return
        if self.message is None:
            self.last_message = time.monotonic()

    def _abort(self, reason: str) -> None:
        logger.warning("An association was aborted: %s.", reason)
        self.message = None
        self.dul.event_queue.put(INVALID_PDU)


class AssociationLimit:
    """Limits the number of associations of a node."""

    def __init__(self, limit: int) -> None:
        self._limit, self._lock = limit, threading.Lock()

    def make_room(self, server: Any) -> bool:
        """Return whether one more association fits, after ending the one that was silent for longest if necessary."""
        with self._lock:
            active = server.active_associations
            if len(active) < self._limit:
                return True
            silent = [each for each in active if isinstance(each.dimse, BoundedMessages) and each.dimse.is_silent()]
            if not silent:
                return False
            # An association within a message is ended only if all silent ones are within one.
            first = min(silent, key=lambda each: (each.dimse.message is not None, each.dimse.last_message))
            logger.warning("An association was ended to make room for another: it was silent for longest.")
            _close_connection(first)
            first.join(SILENT_SECONDS)
            return True


def bounded_handler(limits: NodeLimits) -> type[RequestHandler]:
    """Return the class with which pynetdicom's server handles each connection, within the limits."""
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
