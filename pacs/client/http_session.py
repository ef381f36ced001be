"""A `requests` session with an archive's settings, and the mapping from library errors to the errors of `pacs`."""

import logging
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests
import urllib3
from requests.auth import AuthBase

from pacs.client.configuration import ArchiveConfig
from pacs.client.qido_json import MalformedResponseError
from pacs.client.transport import MAX_RESPONSE_BYTES, BoundedAdapter
from pacs.errors import ArchiveRefusedError, ArchiveUnavailableError, ConfigurationError, PacsError, StudyMissingError

JSON_TYPES = ("application/dicom+json", "application/json")
MAX_SECRET_BYTES = 64 << 10
"""Size limit of a password or token file, in bytes; a larger file is not a secret."""
RETRYABLE_STATUSES = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
MISSING_STATUSES = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
PERMANENT_ERRORS = (
    requests.exceptions.SSLError,
    requests.exceptions.TooManyRedirects,
    requests.exceptions.InvalidJSONError,
    requests.exceptions.ContentDecodingError,
    requests.exceptions.InvalidURL,
)
LOGGERS_WITH_QUERIES = (
    "dicomweb_client.web",
    "retrying",
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.poolmanager",
    "urllib3.response",
    "urllib3.util.retry",
)
"""Loggers of libraries that log whole queries, and therefore patient data."""


class ArchiveSession(requests.Session):
    """An HTTP session with the settings of one archive only: no retries, redirects, environment proxies or .netrc.

    When a method returns, the response has been read completely, within `reply_seconds` and a size limit.
    """

    def __init__(self, name: str, config: ArchiveConfig) -> None:
        super().__init__()
        self.trust_env = False  # REQUESTS_CA_BUNDLE would replace `ca`, and .netrc the secrets
        self.headers["Accept"] = JSON_TYPES[0]  # for STOW-RS, where dicomweb_client sets none
        _require_readable(name, config)
        self.verify = str(config.ca) if config.ca else True
        if config.certificate and config.key:
            self.cert = (str(config.certificate), str(config.key))
        if config.user is not None or config.bearer_file is not None:
            self.auth = SecretFromFile(name, config)
        self._adapter = BoundedAdapter(name, config.reply_seconds)
        self.mount("https://", self._adapter)
        self.mount("http://", self._adapter)
        _silence_loggers()

    def close(self) -> None:
        """Abort the HTTP session's request in any thread and close its connections. Any thread may call this."""
        self._adapter.abort()
        super().close()

    @contextmanager
    def body_limit(self, max_bytes: int) -> Iterator[None]:
        """Limit bodies in the HTTP session to `max_bytes` in the block, instead of `MAX_RESPONSE_BYTES`."""
        self._adapter.max_bytes = max_bytes
        try:
            yield
        finally:
            self._adapter.max_bytes = MAX_RESPONSE_BYTES

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request in the HTTP session, with corrections for quirks of dicomweb_client and Orthanc."""
        request.headers.pop("Host", None)  # dicomweb_client omits the port; http.client sets it correctly
        if request.url is not None:
            request.url = request.url.replace("%2A", "*")  # Orthanc does not decode it and would find nothing
        response = super().send(request, **kwargs)
        kind = _media_type(response)
        if kind in JSON_TYPES:
            # dicomweb_client ignores bodies of "application/dicom+json; charset=utf-8", and failures in them
            response.headers["Content-Type"] = kind
        return response


def _require_readable(name: str, config: ArchiveConfig) -> None:
    """Load the certificates once: in a request, a damaged one looks like a refusal, and an encrypted key prompts."""
    try:
        context = ssl.create_default_context(cafile=config.ca)
        if config.certificate and config.key:
            context.load_cert_chain(config.certificate, config.key, password=lambda: "")
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror
        raise ConfigurationError(f"Archive {name}: `ca`, `certificate` or `key` cannot be used: {reason}.") from None


class SecretFromFile(AuthBase):
    """Reads the secret of an HTTP session from its file for each request, so that a rotated one works at once."""

    def __init__(self, name: str, config: ArchiveConfig) -> None:
        self._name = name
        self._config = config

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        user, password, bearer = self._config.user, self._config.password_file, self._config.bearer_file
        if bearer:
            request.headers["Authorization"] = f"Bearer {self._secret('bearer_file', bearer)}"
        elif user is not None and password:
            pair = b64encode(f"{user}:{self._secret('password_file', password)}".encode())
            request.headers["Authorization"] = f"Basic {pair.decode()}"
        return request

    def _secret(self, key: str, file: Path) -> str:
        """Read a secret. Errors name the key of the archive's table, not the path, because they appear in job lists."""
        try:
            with file.open("rb") as stream:
                secret = stream.read(MAX_SECRET_BYTES).decode().strip("\r\n")
        except OSError as error:
            raise ConfigurationError(f"Archive {self._name}: `{key}` cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise ConfigurationError(f"Archive {self._name}: `{key}` is not UTF-8.") from None
        if not secret or not secret.isprintable() or (key == "bearer_file" and not secret.isascii()):
            raise ConfigurationError(
                f"Archive {self._name}: `{key}` holds no secret; it must be one line of printable characters."
            )
        return secret


@contextmanager
def typed_errors(name: str, study_uid: str | None = None) -> Iterator[None]:
    """Convert the errors of an HTTP session's libraries in the block to errors of `pacs`, without their texts.

    Their messages contain URLs with queries and parts of data sets. An archive that rejects our certificate may close
    the connection before the reason is read (TLS 1.3); it then seems unavailable.
    """
    try:
        yield
    except PacsError:
        raise
    except requests.HTTPError as error:
        raise error_of_status(
            name, error.response.status_code if error.response is not None else 0, study_uid
        ) from None
    except requests.Timeout:
        raise ArchiveUnavailableError(f"Archive {name} did not respond in time.") from None
    except PERMANENT_ERRORS as error:
        if _is_cut_off(error):
            raise ArchiveUnavailableError(f"Archive {name} closed the connection.") from None
        raise ArchiveRefusedError(f"Archive {name}: {_reason(error)}") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise ArchiveUnavailableError(f"Archive {name} cannot be reached: {type(error).__name__}.") from None
    except OSError as error:  # errors of `requests` are subclasses, handled above
        raise ConfigurationError(f"Archive {name}: `certificate`, `key` or `ca`: {type(error).__name__}.") from None
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ArchiveRefusedError(f"Archive {name}: {_unusable(error)}") from None


def error_of_status(name: str, status: int, study_uid: str | None) -> PacsError:
    """Return the error of `pacs` for an HTTP status of 300 or more; `study_uid` is the requested study, if any."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in RETRYABLE_STATUSES:
        return ArchiveUnavailableError(f"Archive {name} responded with status {status}.")
    if status in MISSING_STATUSES and study_uid is not None:
        return StudyMissingError(f"Archive {name} has no study {study_uid}.")
    return ArchiveRefusedError(f"Archive {name} responded with status {status}.")


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return f"TLS failed ({_tls_reason(error)}); check `ca`, `certificate` and `key`."
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return "it redirects, and redirects are not followed; `url` must be the DICOMweb root itself."
    if isinstance(error, requests.exceptions.InvalidJSONError):
        return "its response to a search is not JSON; `url` must be the DICOMweb root itself."
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return "its response cannot be decompressed."
    return f"the request cannot be sent ({type(error).__name__}); check `url`."


def _unusable(error: Exception) -> str:
    if isinstance(error, MalformedResponseError):
        return str(error)
    if isinstance(error, RecursionError):
        return "its response is nested too deeply."
    return f"its response cannot be parsed ({type(error).__name__})."


def _tls_reason(error: BaseException) -> str:
    """Return OpenSSL's reason, such as CERTIFICATE_VERIFY_FAILED, which contains no URL."""
    reasons = [each.reason for each in _chain(error) if isinstance(each, ssl.SSLError) and each.reason]
    return reasons[0] if reasons else "no reason given"


def _is_cut_off(error: BaseException) -> bool:
    return any(isinstance(each, ssl.SSLEOFError | ssl.SSLZeroReturnError) for each in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__context__


def _media_type(response: requests.Response) -> str:
    return response.headers.get("Content-Type", "").split(";")[0].strip().lower()


def _silence_loggers() -> None:
    """Filter the loggers: levels and handlers set elsewhere do not undo that, and adding one twice has no effect."""
    for name in LOGGERS_WITH_QUERIES:
        logging.getLogger(name).addFilter(_drop)


def _drop(_: logging.LogRecord) -> bool:
    return False
