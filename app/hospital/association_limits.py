"""Bounds on what callers of the DICOM node can make it hold: associations, PDUs, data sets and time.

pynetdicom bounds none of these while they are received, so its parts for one association are replaced here by careful
ones.
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
LARGEST_PDU_BYTES = MEBIBYTE
"""Of any PDU, beside the size that is announced for those of data: a request of 128 contexts takes 300 KB."""
COMMAND_BYTES = 64 << 10
"""Of the part of a message that is no data set; it has a few hundred."""
PDU_SECONDS = 30.0
"""From the first byte of a PDU to its last."""
LOOK_SECONDS = 0.5
"""Between two looks at whether an association that waits for bytes was ended."""
READ_BYTES = 64 << 10
QUEUED_MESSAGES = 2
"""That a caller may send before it has the answer to the one before, which PS3.7 D.3.3.3 allows only on agreement."""
SPARE_SECONDS = 2.0
"""Without a finished message, after which an association may have to make room for a new one."""


@dataclass(frozen=True)
class NodeLimits:
    """What an operator sets.

    Attributes:
        associations: at once.
        dataset_bytes: of one instance.
        memory_bytes: of all instances that are being received or looked at.
    """

    associations: int
    dataset_bytes: int
    memory_bytes: int


class Memory:
    """The bytes that all associations may hold together."""

    def __init__(self, limit: int) -> None:
        self._lock, self._free = threading.Lock(), limit

    def take(self, size: int) -> bool:
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
            return True

    def give(self, size: int) -> None:
        with self._lock:
            self._free += size


class BoundedDataset(BytesIO):
    """A data set as it comes; beyond its limits the bytes are let go, and the sender is told once all have come.

    Attributes:
        refusal: why it is not whole; None while it is.
    """

    def __init__(self, limit: int, memory: Memory) -> None:
        super().__init__()
        self.refusal: str | None = None
        self._limit, self._memory, self._held = limit, memory, 0

    def write(self, data: Any) -> int:
        if self.refusal is not None:
            return len(data)
        if self._held + len(data) > self._limit:
            self._refuse(f"The instance has more than {self._limit // MEBIBYTE} MiB.")
        elif not self._memory.take(len(data)):
            self._refuse("Too many bytes are being received; send it again.")
        else:
            self._held += len(data)
            super().write(data)
        return len(data)

    def let_go(self) -> None:
        """Make room for others; nothing can be read afterwards."""
        self._memory.give(self._held)
        self._held = 0
        self.seek(0)
        self.truncate()

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        self.let_go()

    def __del__(self) -> None:
        self._memory.give(self._held)  # of an association that ended in the middle


class BoundedMessages(DIMSEServiceProvider):
    """Puts an association's messages together.

    Attributes:
        since: when the latest message was whole, or else when the association began; seconds of `time.monotonic`.
        serving: whether an instance is being stored, for which the caller has to wait.
    """

    def __init__(self, association: Any, limits: NodeLimits, memory: Memory) -> None:
        super().__init__(association)
        self.since, self.serving = time.monotonic(), False
        self._limits, self._memory, self._command_bytes = limits, memory, 0

    def is_silent(self) -> bool:
        """Whether the caller has finished nothing for so long that the association may have to make room."""
        return not self.serving and time.monotonic() - self.since > SPARE_SECONDS

    def receive_primitive(self, primitive: Any) -> None:
        if self.message is None:
            self._command_bytes = 0
            self.message = DIMSEMessage()
            self.message.data_set = BoundedDataset(self._limits.dataset_bytes, self._memory)
        for _, fragment in primitive.presentation_data_value_list:
            self._command_bytes += len(fragment) if fragment[:1] and fragment[0] & 1 else 0
        if self._command_bytes > COMMAND_BYTES or self.msg_queue.qsize() > QUEUED_MESSAGES:
            self._refuse()
            return
        try:
            super().receive_primitive(primitive)
        except Exception:  # a message may be anything, and the thread that reads it has nobody who catches
            self._refuse()
        if self.message is None:
            self.since = time.monotonic()

    def _refuse(self) -> None:
        logger.warning("An association was aborted: its caller does not keep to the protocol.")
        self.message = None
        self.dul.event_queue.put("Evt19")  # an invalid PDU: A-ABORT, and the end of the association


class Crowd:
    """The associations of a node."""

    def __init__(self, limit: int) -> None:
        self._limit, self._lock = limit, threading.Lock()

    def make_room(self, server: Any) -> bool:
        """Whether there is room for one more, after the one that has been silent for longest was ended if need be."""
        with self._lock:
            here = server.active_associations
            if len(here) < self._limit:
                return True
            silent = [each for each in here if isinstance(each.dimse, BoundedMessages) and each.dimse.is_silent()]
            if not silent:
                return False
            # One that is in the middle of a message goes only if all are.
            first = min(silent, key=lambda each: (each.dimse.message is not None, each.dimse.since))
            logger.warning("An association was ended to make room for another: it was silent for longest.")
            _hang_up(first)
            first.join(SPARE_SECONDS)
            return True


def bounded_handler(limits: NodeLimits) -> type[RequestHandler]:
    """What `pynetdicom` makes an association of each connection with."""
    memory, crowd = Memory(limits.memory_bytes), Crowd(limits.associations)

    class BoundedHandler(RequestHandler):
        def handle(self) -> None:
            if not crowd.make_room(self.server):
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
    """Let go of a connection that closed before it asked for an association; its thread waits for what cannot come."""
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(None)


def _receive(association: Any, size: int) -> bytearray:
    """Bytes of a PDU; fewer where the caller has hung up.

    Raises:
        OSError: the PDU is too large, too slow, or the association was ended.
    """
    if size > LARGEST_PDU_BYTES:
        logger.warning("An association was ended: it announced a PDU of %d bytes.", size)
        raise OSError("PDU too large")
    connection, deadline, data = association.dul.socket.socket, time.monotonic() + PDU_SECONDS, bytearray()
    while len(data) < size:
        if association._kill or time.monotonic() > deadline:
            raise TimeoutError("PDU too slow")
        connection.settimeout(LOOK_SECONDS)
        try:
            chunk = connection.recv(min(size - len(data), READ_BYTES))
        except TimeoutError:
            continue
        if not chunk:
            break
        data += chunk
    connection.settimeout(PDU_SECONDS)  # for what is sent
    return data


def _hang_up(association: Any) -> None:
    connection = association.dul.socket.socket
    try:
        if connection is not None:
            connection.shutdown(SHUT_RDWR)
    except OSError:
        return  # the caller was quicker
