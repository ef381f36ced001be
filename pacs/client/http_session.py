"""An archive's settings go in, a `requests` session that keeps to them and typed errors for what it raises come out."""

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
from pacs.client.qido_json import AnswerError
from pacs.client.transport import MAX_ANSWER_BYTES, BoundedAdapter
from pacs.errors import ArchiveRefusedError, ArchiveUnavailableError, ConfigurationError, PacsError, StudyMissingError

JSON_TYPES = ("application/dicom+json", "application/json")
MAX_SECRET_BYTES = 64 << 10
LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
MISSING = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
PERMANENT = (
    requests.exceptions.SSLError,
    requests.exceptions.TooManyRedirects,
    requests.exceptions.InvalidJSONError,
    requests.exceptions.ContentDecodingError,
    requests.exceptions.InvalidURL,
)
TALKATIVE = (
    "dicomweb_client.web",
    "retrying",
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.poolmanager",
    "urllib3.response",
    "urllib3.util.retry",
)
"""Loggers of the libraries below; their lines hold whole queries, and so the patients that were asked for."""


class ArchiveSession(requests.Session):
    """Follows one archive's settings and nothing else: no retry, redirect, proxy or .netrc.

    Replies are read whole when a method returns, within `reply_seconds` and a limit of bytes.
    """

    def __init__(self, name: str, config: ArchiveConfig) -> None:
        super().__init__()
        self.trust_env = False  # REQUESTS_CA_BUNDLE would replace `ca`, and .netrc the secrets
        self.headers["Accept"] = JSON_TYPES[0]  # of STOW, where dicomweb_client names none
        _require_readable(name, config)
        self.verify = str(config.ca) if config.ca else True
        if config.certificate and config.key:
            self.cert = (str(config.certificate), str(config.key))
        if config.user is not None or config.bearer_file is not None:
            self.auth = SecretFromFile(name, config)
        self._adapter = BoundedAdapter(name, config.reply_seconds)
        self.mount("https://", self._adapter)
        self.mount("http://", self._adapter)
        _silence()

    def close(self) -> None:
        """From any thread; a request that another thread waits for ends at once."""
        self._adapter.cut()
        super().close()

    @contextmanager
    def up_to(self, max_bytes: int) -> Iterator[None]:
        """Take bodies of so many bytes in the block, instead of those that an answer in JSON may have."""
        self._adapter.max_bytes = max_bytes
        try:
            yield
        finally:
            self._adapter.max_bytes = MAX_ANSWER_BYTES

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        request.headers.pop("Host", None)  # dicomweb_client's lacks the port; http.client knows better
        if request.url is not None:
            request.url = request.url.replace("%2A", "*")  # Orthanc does not decode it, and finds nothing
        response = super().send(request, **kwargs)
        kind = _media_type(response)
        if kind in JSON_TYPES:
            # dicomweb_client takes "application/dicom+json; charset=utf-8" for nothing, and failures with it
            response.headers["Content-Type"] = kind
        return response


def _require_readable(name: str, config: ArchiveConfig) -> None:
    """Load the certificates once: in a request, a damaged one looks like a refusal, a locked key asks a terminal."""
    try:
        context = ssl.create_default_context(cafile=config.ca)
        if config.certificate and config.key:
            context.load_cert_chain(config.certificate, config.key, password=lambda: "")
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror
        raise ConfigurationError(f"Archive {name}: `ca`, `certificate` or `key` cannot be used: {reason}.") from None


class SecretFromFile(AuthBase):
    """Puts what stands in the file at this moment into each request, so that a rotated secret works at once."""

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
        """Errors name the key of the archive's table and not the path: they reach lists of jobs."""
        try:
            with file.open("rb") as stream:
                secret = stream.read(MAX_SECRET_BYTES).decode().strip("\r\n")
        except OSError as error:
            raise ConfigurationError(f"Archive {self._name}: `{key}` cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise ConfigurationError(f"Archive {self._name}: `{key}` holds no UTF-8.") from None
        if not secret or not secret.isprintable() or (key == "bearer_file" and not secret.isascii()):
            raise ConfigurationError(f"Archive {self._name}: `{key}` holds no secret on one line.")
        return secret


@contextmanager
def typed_errors(name: str, study_uid: str | None = None) -> Iterator[None]:
    """Turn whatever the libraries raise in the block into the errors of `pacs`, without their texts.

    Their messages hold URLs with queries and pieces of data sets, so none of them goes further. An archive that does
    not like our certificate may close before its reason is read (TLS 1.3), and then looks unavailable.
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
        raise ArchiveUnavailableError(f"Archive {name} did not answer in time.") from None
    except PERMANENT as error:
        if _cut_off(error):
            raise ArchiveUnavailableError(f"Archive {name} broke the connection off.") from None
        raise ArchiveRefusedError(f"Archive {name}: {_reason(error)}") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise ArchiveUnavailableError(f"Archive {name} cannot be reached: {type(error).__name__}.") from None
    except OSError as error:  # requests' own are of this kind too, and were dealt with
        raise ConfigurationError(f"Archive {name}: `certificate`, `key` or `ca`: {type(error).__name__}.") from None
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ArchiveRefusedError(f"Archive {name}: {_unusable(error)}") from None


def error_of_status(name: str, status: int, study_uid: str | None) -> PacsError:
    """The error that an HTTP status of 300 or more means; `study_uid` is the study that was asked for, if any."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in LATER:
        return ArchiveUnavailableError(f"Archive {name} answered {status}.")
    if status in MISSING and study_uid is not None:
        return StudyMissingError(f"Archive {name} has no study {study_uid}.")
    return ArchiveRefusedError(f"Archive {name} answered {status}.")


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return f"TLS failed ({_tls_reason(error)}); look at `ca`, `certificate` and `key`."
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return "it redirects, which is not followed; `url` must be the DICOMweb root itself."
    if isinstance(error, requests.exceptions.InvalidJSONError):
        return "its answer to a search is not JSON; `url` must be the DICOMweb root itself."
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return "its answer cannot be decompressed."
    return f"the request cannot be sent ({type(error).__name__}); look at `url`."


def _unusable(error: Exception) -> str:
    if isinstance(error, AnswerError):
        return str(error)
    if isinstance(error, RecursionError):
        return "its answer is nested too deeply."
    return f"its answer cannot be read ({type(error).__name__})."


def _tls_reason(error: BaseException) -> str:
    """OpenSSL's word for it, such as CERTIFICATE_VERIFY_FAILED; free of URLs."""
    reasons = [each.reason for each in _chain(error) if isinstance(each, ssl.SSLError) and each.reason]
    return reasons[0] if reasons else "no reason given"


def _cut_off(error: BaseException) -> bool:
    return any(isinstance(each, ssl.SSLEOFError | ssl.SSLZeroReturnError) for each in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__context__


def _media_type(response: requests.Response) -> str:
    return response.headers.get("Content-Type", "").split(";")[0].strip().lower()


def _silence() -> None:
    """By filters, which levels and handlers set elsewhere do not undo; added again, each is still there once."""
    for name in TALKATIVE:
        logging.getLogger(name).addFilter(_drop)


def _drop(_: logging.LogRecord) -> bool:
    return False
