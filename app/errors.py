"""The errors of the service, and the handlers that turn each into an RFC 9457 problem document.

A problem says what to change and reveals nothing about the machine.

RequestError                    base class of the errors that only the service raises
├── MalformedRequestError       400
├── UnknownCallerError          401
├── NotAllowedError             403
├── UnknownPathError            404
├── WrongMethodError            405
├── ConflictError               409
│   └── ReloadRefusedError
├── PayloadTooLargeError        413
├── UnsupportedContentTypeError 415
├── OutOfRangeError             422
├── OverloadedError             429, with Retry-After
├── EngineError                 500
├── NotReadyError               503
│   └── NotConfiguredError
└── DeadlineError               504

Errors of other packages: JobsUnavailableError (`pacs`) and ProcessNotStartedError (no decoder can be started) are 503
with Retry-After; SealError (`pacs`) is 500.
"""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pacs.queue.errors import JobsUnavailableError, SealError
from xray.errors import (
    InputError,
    MixedStudyError,
    NoContentError,
    OutOfScopeError,
    TooManyPixelsError,
    UnreadableImageError,
    UnsupportedFormatError,
)
from xray.sandbox.pool import ProcessNotStartedError

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 10
"""Retry-After in seconds if the database of jobs does not respond or no decoder can be started."""
PROBLEM_TYPE = "application/problem+json"
SAFE_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Headers of every reply, so that no cache stores patient data and no browser guesses the content type."""
WHAT_IS_SERVED = "POST a radiograph to /classify, /cam, /retrieve or /analyze; /docs lists all endpoints."


class RequestError(Exception):
    """Base class of the errors that only the service raises."""


class MalformedRequestError(RequestError):
    """Error for a request that cannot be parsed, or has no image."""


class UnknownCallerError(RequestError):
    """Error for a request whose caller is not authenticated."""


class NotAllowedError(RequestError):
    """Error for a request whose caller does not have permission."""


class UnknownPathError(RequestError):
    """Error for a request to a path at which nothing is served."""


class WrongMethodError(RequestError):
    """Error for a request with a method that its path does not support."""


class ConflictError(RequestError):
    """Error for a request that conflicts with the current state of the resource."""


class ReloadRefusedError(ConflictError):
    """Error for a refused request to reload the artifacts; the old ones stay in use."""


class PayloadTooLargeError(RequestError):
    """Error for a request whose body has more bytes than the limit."""


class UnsupportedContentTypeError(RequestError):
    """Error for a request whose declared content type cannot hold a radiograph."""


class OutOfRangeError(RequestError):
    """Error for a request with an unknown option, or a number outside its range."""


class OverloadedError(RequestError):
    """Error for a request that meets too much queued work; its caller should retry after `retry_after` seconds.

    `limit` names the limit that was reached: the predicted `wait`, or the `requests` in flight or their `bytes`.
    """

    def __init__(self, detail: str, retry_after: int, limit: str) -> None:
        super().__init__(detail)
        self.retry_after, self.limit = retry_after, limit


class EngineError(RequestError):
    """Error for a request during which the service failed; the next request may succeed."""


class NotReadyError(RequestError):
    """Error for a request that the replica cannot serve at the moment."""


class NotConfiguredError(NotReadyError):
    """Error for a request that needs a feature that the operator has not configured."""


class DeadlineError(RequestError):
    """Error for a request that did not finish before its deadline."""


STATUS: dict[type[Exception], HTTPStatus] = {
    MalformedRequestError: HTTPStatus.BAD_REQUEST,
    UnknownCallerError: HTTPStatus.UNAUTHORIZED,
    NotAllowedError: HTTPStatus.FORBIDDEN,
    UnknownPathError: HTTPStatus.NOT_FOUND,
    WrongMethodError: HTTPStatus.METHOD_NOT_ALLOWED,
    ConflictError: HTTPStatus.CONFLICT,
    PayloadTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    TooManyPixelsError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedContentTypeError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    UnsupportedFormatError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    OutOfRangeError: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnreadableImageError: HTTPStatus.UNPROCESSABLE_ENTITY,
    MixedStudyError: HTTPStatus.UNPROCESSABLE_ENTITY,
    NoContentError: HTTPStatus.UNPROCESSABLE_ENTITY,
    OutOfScopeError: HTTPStatus.UNPROCESSABLE_ENTITY,
    InputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    OverloadedError: HTTPStatus.TOO_MANY_REQUESTS,
    EngineError: HTTPStatus.INTERNAL_SERVER_ERROR,
    NotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
    DeadlineError: HTTPStatus.GATEWAY_TIMEOUT,
    JobsUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    SealError: HTTPStatus.INTERNAL_SERVER_ERROR,
    ProcessNotStartedError: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""HTTP status of each error class; a subclass without an entry has the status of its nearest base class."""


def install_error_handlers(app: FastAPI) -> None:
    """Register handlers that answer every error with a problem document."""
    app.add_exception_handler(RequestError, _own_error)
    app.add_exception_handler(InputError, _own_error)
    for kind in (JobsUnavailableError, SealError, ProcessNotStartedError):
        app.add_exception_handler(kind, _server_fault)
    app.add_exception_handler(RequestValidationError, _invalid_option)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_disconnected)
    app.add_exception_handler(Exception, _unexpected)


def http_status(error: Exception) -> HTTPStatus:
    """Return the HTTP status that answers an error of the service. Its class or a base class has to be in `STATUS`."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(request: Request, status: HTTPStatus, kind: str, detail: str) -> JSONResponse:
    """Build the problem response to an error, and store its kind in the request's state for the metrics."""
    request.state.reason = kind
    return JSONResponse(problem_content(status, kind, detail), status, media_type=PROBLEM_TYPE)


def problem_content(status: HTTPStatus, kind: str, detail: str) -> dict[str, str | int]:
    """Return the members of an error's problem document (RFC 9457)."""
    return {"type": f"urn:osteon:error:{kind}", "title": status.phrase, "status": status.value, "detail": detail}


async def _own_error(request: Request, error: Exception) -> JSONResponse:
    reply = problem(request, http_status(error), type(error).__name__, str(error))
    if isinstance(error, OverloadedError):
        request.state.reason = error.limit
        reply.headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, UnknownCallerError):
        reply.headers["WWW-Authenticate"] = 'Basic realm="osteon"'
    return reply


async def _server_fault(request: Request, error: Exception) -> JSONResponse:
    # Log the route's template and not the path, which can name a study.
    logger.error("%s %s: %s", request.method, request.scope["route"].path, error)
    if isinstance(error, SealError):
        return problem(request, http_status(error), type(error).__name__, str(error))
    detail = f"{error} The request is valid; send it again later."
    reply = problem(request, http_status(error), type(error).__name__, detail)
    reply.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return reply


async def _invalid_option(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(str(part) for part in fault['loc'][1:])}: {fault['msg']}" for fault in error.errors()]
    return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, OutOfRangeError.__name__, "; ".join(faults))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    if status == HTTPStatus.NOT_FOUND:
        reply = problem(request, status, UnknownPathError.__name__, f"Nothing is served at this path; {WHAT_IS_SERVED}")
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        reply = problem(
            request, status, WrongMethodError.__name__, f"{request.method} is not supported here; {WHAT_IS_SERVED}"
        )
    else:
        reply = problem(request, status, MalformedRequestError.__name__, f"The request cannot be read: {error.detail}")
    reply.headers.update(error.headers or {})
    return reply


async def _client_disconnected(request: Request, error: Exception) -> JSONResponse:
    # Nobody reads this reply, but without it the disconnect would be logged as an error of the service.
    return problem(
        request, HTTPStatus.BAD_REQUEST, MalformedRequestError.__name__, "The body ended before it was complete."
    )


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    # The server logs the traceback; the reply contains no details.
    reply = problem(
        request,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        EngineError.__name__,
        "This is a fault of the service; you may send the request again.",
    )
    reply.headers.update(SAFE_HEADERS)  # this reply does not pass the middleware that adds them
    return reply
