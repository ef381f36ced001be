"""Whatever goes wrong in, one RFC 9457 problem out: what to change, and nothing about this machine.

RequestError                    what only a service can have to say
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

Of the errors of `pacs`, JobsUnavailableError is 503 with Retry-After, and SealError 500. ProcessNotStartedError, where
no decoder can be started, is 503 with Retry-After.
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
    NoContentError,
    OutOfScopeError,
    TooManyPixelsError,
    UnreadableImageError,
    UnsupportedFormatError,
)
from xray.sandbox.pool import ProcessNotStartedError

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 10
"""After which to ask again where the database of jobs does not answer, or no decoder can be started."""
PROBLEM_TYPE = "application/problem+json"
SAFE_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Of every reply: what is said of a patient stays in no cache, and no browser guesses what it is."""
WHAT_IS_SERVED = "a radiograph is POSTed to /classify, /cam, /retrieve or /analyze, and /docs shows the rest."


class RequestError(Exception):
    """Base of the errors that only a service can have."""


class MalformedRequestError(RequestError):
    """The request cannot be parsed, or lacks its image."""


class UnknownCallerError(RequestError):
    """The caller has to say who they are."""


class NotAllowedError(RequestError):
    """The caller may not do that."""


class UnknownPathError(RequestError):
    """Nothing is served there."""


class WrongMethodError(RequestError):
    """The path is served, but not for this method."""


class ConflictError(RequestError):
    """What is asked for does not fit the state of things."""


class ReloadRefusedError(ConflictError):
    """The artifacts were not exchanged, and the old ones go on."""


class PayloadTooLargeError(RequestError):
    """The body has more bytes than the limit."""


class UnsupportedContentTypeError(RequestError):
    """The body is declared as something that cannot hold a radiograph."""


class OutOfRangeError(RequestError):
    """An option is not one of those served, or a number is beyond its limit."""


class OverloadedError(RequestError):
    """Too much is waiting; the caller should come back after `retry_after` seconds.

    `limit` names what was reached: the predicted `wait`, `requests` inside or their `bytes`.
    """

    def __init__(self, detail: str, retry_after: int, limit: str) -> None:
        super().__init__(detail)
        self.retry_after, self.limit = retry_after, limit


class EngineError(RequestError):
    """Something failed on our side, and the next request may succeed."""


class NotReadyError(RequestError):
    """The engine does not run."""


class NotConfiguredError(NotReadyError):
    """The operator has not set what this needs."""


class DeadlineError(RequestError):
    """The answer would come too late."""


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
"""The nearest class in an error's ancestry decides."""


def install_error_handlers(app: FastAPI) -> None:
    """Make every error reply of an application a problem."""
    app.add_exception_handler(RequestError, _own_error)
    app.add_exception_handler(InputError, _own_error)
    for kind in (JobsUnavailableError, SealError, ProcessNotStartedError):
        app.add_exception_handler(kind, _server_fault)
    app.add_exception_handler(RequestValidationError, _invalid_option)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_disconnected)
    app.add_exception_handler(Exception, _unexpected)


def http_status(error: Exception) -> HTTPStatus:
    """The HTTP status of one of our errors."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(request: Request, status: HTTPStatus, kind: str, detail: str) -> JSONResponse:
    """One problem document; the metrics learn of its kind from the request's state."""
    request.state.reason = kind
    return JSONResponse(problem_content(status, kind, detail), status, media_type=PROBLEM_TYPE)


def problem_content(status: HTTPStatus, kind: str, detail: str) -> dict[str, str | int]:
    """The members of a problem document (RFC 9457)."""
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
    logger.error("%s %s: %s", request.method, request.scope["route"].path, error)  # the route, which names no study
    if isinstance(error, SealError):
        return problem(request, http_status(error), type(error).__name__, str(error))
    detail = f"{error} Nothing is wrong with the request; send it again later."
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
            request, status, WrongMethodError.__name__, f"{request.method} is not served here; {WHAT_IS_SERVED}"
        )
    else:
        reply = problem(request, status, MalformedRequestError.__name__, f"The request cannot be read: {error.detail}")
    reply.headers.update(error.headers or {})
    return reply


async def _client_disconnected(request: Request, error: Exception) -> JSONResponse:
    # Nobody is there to read it; it only keeps a caller's going away from being logged as our failure.
    return problem(
        request, HTTPStatus.BAD_REQUEST, MalformedRequestError.__name__, "The body ended before it was complete."
    )


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    # The server logs the traceback; the caller learns only that it is our fault.
    reply = problem(
        request,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        EngineError.__name__,
        "This is our fault; the request may be sent again.",
    )
    reply.headers.update(SAFE_HEADERS)  # this reply is made outside of what gives them to all others
    return reply
