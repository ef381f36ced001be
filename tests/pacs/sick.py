"""Archives that are sick or hostile, played by a server on loopback that sends whatever bytes it is told to."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\n"
PAUSE_SECONDS = 0.05


@dataclass
class Sick:
    """Sends `begin` to each caller, then `again` until the caller goes.

    Attributes:
        asked: set when a request has come.
        left: set when a caller has gone.
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
def sick(begin: bytes, again: bytes = b"", pause: float = PAUSE_SECONDS) -> Iterator[Sick]:
    """An archive that drips, if `pause` is some time, or pours."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        archive = Sick(begin, again, pause, listening.getsockname()[1])
        threading.Thread(target=archive.accept, args=(listening,), daemon=True).start()
        try:
            yield archive
        finally:
            archive.end()
            listening.shutdown(socket.SHUT_RDWR)


def running(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """Work in a thread of its own, and what it raises."""
    raised: list[BaseException] = []

    def catch() -> None:
        try:
            work()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=catch)
    thread.start()
    return thread, raised
