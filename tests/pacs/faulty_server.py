"""A loopback server that plays faulty or hostile archives by sending given bytes."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\n"
PAUSE_SECONDS = 0.05


@dataclass
class FaultyServer:
    """A server that sends `begin` to each client, then `again` until the client disconnects.

    Attributes:
        asked: set when a request has arrived.
        left: set when a client has disconnected.
    """

    begin: bytes
    again: bytes
    pause: float = PAUSE_SECONDS
    port: int = 0
    sent: int = 0
    asked: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            self.asked.set()
            connection.sendall(self.begin)
            while self.again and not self._over.is_set():
                connection.sendall(self.again)
                self.sent += len(self.again)
                time.sleep(self.pause)
            while connection.recv(1 << 16):
                pass
        self.left.set()

    def accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def end(self) -> None:
        self._over.set()


@contextmanager
def faulty_server(begin: bytes, again: bytes = b"", pause: float = PAUSE_SECONDS) -> Iterator[FaultyServer]:
    """Run a server that sends bytes slowly, or as fast as it can if `pause` is 0."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        archive = FaultyServer(begin, again, pause, listening.getsockname()[1])
        threading.Thread(target=archive.accept, args=(listening,), daemon=True).start()
        try:
            yield archive
        finally:
            archive.end()
            listening.shutdown(socket.SHUT_RDWR)


def running(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """Run a function in a new thread; return the thread and the list of errors that it raised."""
    raised: list[BaseException] = []

    def catch() -> None:
        try:
            work()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=catch)
    thread.start()
    return thread, raised
