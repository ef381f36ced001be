"""A request body in, named image bytes out, within the limits and before anything is decoded."""

import re
import sys
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartParser
from starlette.types import Message, Receive

from app.errors import MalformedRequestError, OutOfRangeError, PayloadTooLargeError, UnsupportedContentTypeError
from app.settings import Settings

PART = "file"
RAW_TYPES = frozenset({"", "image/png", "image/jpeg", "image/jpg", "application/dicom", "application/octet-stream"})
RAW_NAME = "radiograph"
UNSAFE_NAME = re.compile(r"[/\\\x00-\x1f\x7f]|^\.\.?$")
MAX_NAME = 255
"""Characters of a file name."""
MAX_PARTS = 1000
"""Files that are parsed at all; far above the limit on a study, so that a caller just beyond that learns of it."""


@dataclass(frozen=True)
class Upload:
    """One image as it came."""

    name: str
    data: bytes


async def read_uploads(request: Request, settings: Settings, max_files: int) -> list[Upload]:
    """The images of one study: the multipart parts named `file`, or the raw body.

    Raises:
        MalformedRequestError: no image, an empty one, an unsafe file name or broken multipart.
        PayloadTooLargeError: more bytes than the limit; the rest is not read.
        UnsupportedContentTypeError: the declared type cannot hold a radiograph.
        OutOfRangeError: more files than the limit.
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    bounded = Request(request.scope, _bounded(request, settings))
    if content_type == "multipart/form-data":
        uploads = await _parts(bounded, max_files)
    elif content_type in RAW_TYPES:
        uploads = [Upload(RAW_NAME, await bounded.body())]
    else:
        raise UnsupportedContentTypeError(
            "This Content-Type cannot hold a radiograph; send multipart/form-data with parts named "
            f"'{PART}', or the image itself as image/png, image/jpeg or application/dicom."
        )
    for number, upload in enumerate(uploads, start=1):
        if not upload.data:
            raise MalformedRequestError(
                f"Radiograph {number} of {len(uploads)} is empty; send the bytes of a PNG, JPEG or DICOM file."
            )
    return uploads


def announced_size(request: Request, settings: Settings) -> int:
    """Bytes that the body will have, by its head; the most it may have where the head does not say.

    Raises:
        PayloadTooLargeError: more than the limit.
    """
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isdecimal() else settings.max_upload_bytes
    _require_within(size, settings)
    return size


def _require_within(size: int, settings: Settings) -> None:
    if size > settings.max_upload_bytes:
        raise PayloadTooLargeError(
            f"The request is larger than {settings.max_upload_mib} MiB; send fewer or smaller files."
        )


def _bounded(request: Request, settings: Settings) -> Receive:
    """The request's messages, cut off with an error once their bytes pass the limit."""
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        _require_within(received, settings)
        return message

    return receive


# A larger part would lie in a file, open to whoever reads the disk; the limit of the request bounds the memory.
MultiPartParser.spool_max_size = sys.maxsize


async def _parts(request: Request, max_files: int) -> list[Upload]:
    async with request.form(max_files=MAX_PARTS, max_fields=1) as form:
        parts: list[Any] = form.getlist(PART)
        if not parts:
            raise MalformedRequestError(f"The form has no part named '{PART}'; send each radiograph as one.")
        if len(parts) > max_files:
            raise OutOfRangeError(f"{len(parts)} files were sent; this endpoint takes at most {max_files}.")
        return [await _upload(part) for part in parts]


async def _upload(part: Any) -> Upload:
    if not isinstance(part, UploadFile):
        raise MalformedRequestError(f"The part '{PART}' is a text field; send it as a file, with a file name.")
    name = part.filename or RAW_NAME
    if len(name) > MAX_NAME or UNSAFE_NAME.search(name):
        raise MalformedRequestError(
            "A file name may not hold a folder, control characters or more than 255 characters."
        )
    return Upload(name, await part.read())
