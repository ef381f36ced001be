"""HTTP to one archive within bounds that the archive cannot stretch: seconds for each reply, and bytes of its body."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from socket import SHUT_RDWR, socket
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from pacs.errors import ArchiveUnavailableError, TooLargeError

MAX_ANSWER_BYTES = 16 << 20
"""Of an answer in JSON, decompressed: about 10,000 matches. Parsed, it may take thirty times its size."""
CHUNK_BYTES = 1 << 20


class Reply:
    """One reply that is waited for."""

    late = False


class Line:
    """The connection to an archive that is in use; any thread may cut it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket | None = None
        self._awaited: Reply | None = None
        self._closed = False

    def use(self, connection: socket) -> None:
        """Take over a new connection, in place of the one before."""
        with self._lock:
            self._socket = connection
            if self._closed or (self._awaited is not None and self._awaited.late):
                _shut(connection)

    def close(self) -> None:
        """Cut the connection and every later one."""
        with self._lock:
            self._closed = True
            _shut(self._socket)

    @contextmanager
    def reply_within(self, seconds: float) -> Iterator[Reply]:
        """Cut the connection if the block takes longer; whatever it waits for then ends at once."""
        reply = self._awaited = Reply()
        timer = threading.Timer(seconds, self._end, (reply,))
        timer.daemon = True
        timer.start()
        try:
            yield reply
        finally:
            timer.cancel()
            with self._lock:
                self._awaited = None

    def _end(self, reply: Reply) -> None:
        with self._lock:
            if self._awaited is reply:
                reply.late = True
                _shut(self._socket)


class BoundedAdapter(HTTPAdapter):
    """Reads each reply whole, or ends it.

    A time-out of the socket starts again with every byte, and `requests` reads bodies of any size, those of redirects
    and errors among them.

    Attributes:
        max_bytes: of the next body, decompressed.
    """

    def __init__(self, name: str, reply_seconds: float) -> None:
        self.max_bytes = MAX_ANSWER_BYTES
        self._name, self._seconds, self._line = name, reply_seconds, Line()
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        pools = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}
        watched = {scheme: _watched(pool, self._line) for scheme, pool in pools.items()}
        self.poolmanager.pool_classes_by_scheme = watched

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Raises what `requests` raises; ArchiveUnavailableError if it is late, TooLargeError if it is too large."""
        kwargs["stream"] = True
        with self._line.reply_within(self._seconds) as reply:
            try:
                with super().send(request, *args, **kwargs) as response:
                    response._content = self._body(response)
            except Exception:
                if not reply.late:
                    raise
        if reply.late:  # a body that ends with its connection looks whole when it is cut
            raise ArchiveUnavailableError(f"Archive {self._name} took more than {self._seconds:g} s for one reply.")
        return response

    def cut(self) -> None:
        """End the reply that another thread waits for, and every later request."""
        self._line.close()

    def _body(self, response: requests.Response) -> bytes:
        if response.is_redirect:
            raise requests.TooManyRedirects("redirects are not followed")
        if response.status_code >= HTTPStatus.BAD_REQUEST and response.status_code != HTTPStatus.CONFLICT:
            return b""
        body = bytearray()
        for chunk in response.iter_content(CHUNK_BYTES):
            body += chunk
            if len(body) > self.max_bytes:
                raise TooLargeError(f"Archive {self._name}: its answer has more than {self.max_bytes} bytes.")
        return bytes(body)


def _watched(pool: type[HTTPConnectionPool], line: Line) -> type[HTTPConnectionPool]:
    """`pool` with connections that tell `line` of their sockets."""

    def connect(self: Any) -> None:
        pool.ConnectionCls.connect(self)
        line.use(self.sock)

    connection = type("WatchedConnection", (pool.ConnectionCls,), {"connect": connect})
    return type("WatchedPool", (pool,), {"ConnectionCls": connection})


def _shut(connection: socket | None) -> None:
    if connection is None:
        return
    try:
        socket.shutdown(connection, SHUT_RDWR)  # not an SSLSocket's own, which would take TLS away from the reader
    except OSError:
        return  # closed already
