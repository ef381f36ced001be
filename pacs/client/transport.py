"""HTTP transport that limits the time and the size of each response, so that an archive cannot block the service."""

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

MAX_RESPONSE_BYTES = 16 << 20
"""Size limit of a decompressed JSON response, in bytes: about 10,000 matches. Parsed, they take 30 times that."""
CHUNK_BYTES = 1 << 20
"""Bytes to read at a time before the limit is checked."""


class PendingResponse:
    """A response that a thread of the HTTP transport waits for; `late` is set after its timeout."""

    late = False


class InterruptibleConnection:
    """The transport's connection to an archive that is in use. Any thread may shut it down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket | None = None
        self._awaited: PendingResponse | None = None
        self._closed = False

    def use(self, connection: socket) -> None:
        """Replace the transport's connection with a new one, shut down at once if the response is already late."""
        with self._lock:
            self._socket = connection
            if self._closed or (self._awaited is not None and self._awaited.late):
                _shut(connection)

    def close(self) -> None:
        """Shut down the transport's connection and every later one."""
        with self._lock:
            self._closed = True
            _shut(self._socket)

    @contextmanager
    def limit_time(self, seconds: float) -> Iterator[PendingResponse]:
        """Shut down the transport's connection if the block takes longer than `seconds`, which ends all its reads."""
        pending = self._awaited = PendingResponse()
        timer = threading.Timer(seconds, self._end, (pending,))
        timer.daemon = True
        timer.start()
        try:
            yield pending
        finally:
            timer.cancel()
            with self._lock:
                self._awaited = None

    def _end(self, pending: PendingResponse) -> None:
        with self._lock:
            if self._awaited is pending:
                pending.late = True
                _shut(self._socket)


class BoundedAdapter(HTTPAdapter):
    """The HTTP transport: reads each response completely, within a time limit and a size limit, or aborts it.

    A socket timeout alone restarts with every byte, and `requests` reads bodies of any size, including those of
    redirects and errors.

    Attributes:
        max_bytes: size limit of the next body after decompression, in bytes.
    """

    def __init__(self, name: str, reply_seconds: float) -> None:
        self.max_bytes = MAX_RESPONSE_BYTES
        self._name, self._seconds, self._connection = name, reply_seconds, InterruptibleConnection()
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the transport's connection pools of `requests`, with connections that can be shut down."""
        super().init_poolmanager(*args, **kwargs)
        pools = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}
        watched = {scheme: _watched(pool, self._connection) for scheme, pool in pools.items()}
        self.poolmanager.pool_classes_by_scheme = watched

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request to the archive and read the response within the transport's limits of time and size.

        Raises:
            ArchiveUnavailableError: the response took too long.
            TooLargeError: the body exceeds `max_bytes`.
            requests.RequestException: as `requests` does.
        """
        kwargs["stream"] = True
        with self._connection.limit_time(self._seconds) as pending:
            try:
                with super().send(request, *args, **kwargs) as response:
                    response._content = self._body(response)
            except Exception:
                if not pending.late:
                    raise
        if pending.late:  # a body without Content-Length looks complete when the connection is shut down
            raise ArchiveUnavailableError(
                f"Archive {self._name} took more than {self._seconds:g} s for one response; check `reply_seconds`."
            )
        return response

    def abort(self) -> None:
        """Abort the response that another thread of the transport waits for, and every later request."""
        self._connection.close()

    def _body(self, response: requests.Response) -> bytes:
        if response.is_redirect:
            raise requests.TooManyRedirects("redirects are not followed")
        if response.status_code >= HTTPStatus.BAD_REQUEST and response.status_code != HTTPStatus.CONFLICT:
            return b""
        body = bytearray()
        for chunk in response.iter_content(CHUNK_BYTES):
            body += chunk
            if len(body) > self.max_bytes:
                raise TooLargeError(f"Archive {self._name}: its response has more than {self.max_bytes} bytes.")
        return bytes(body)


def _watched(pool: type[HTTPConnectionPool], interruptible: InterruptibleConnection) -> type[HTTPConnectionPool]:
    """Return a subclass of `pool` whose connections register their sockets with `interruptible`."""

    def connect(self: Any) -> None:
        pool.ConnectionCls.connect(self)
        interruptible.use(self.sock)

    connection = type("WatchedConnection", (pool.ConnectionCls,), {"connect": connect})
    return type("WatchedPool", (pool,), {"ConnectionCls": connection})


def _shut(connection: socket | None) -> None:
    if connection is None:
        return
    try:
        socket.shutdown(connection, SHUT_RDWR)  # SSLSocket.shutdown would remove TLS from the reader
    except OSError:
        return  # already closed
