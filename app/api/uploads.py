"""Reads the uploaded files of a request, from a form or the raw body, within the limits; it does not decode them."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from fastapi import Request
from python_multipart.multipart import parse_options_header

from app.api.multipart_related import iterate_parts
from app.api.parameters import require_known
from app.api.request_body import is_compressed, limit_body_size, require_body_size
from app.errors import MalformedRequestError, OutOfRangeError, UnsupportedContentTypeError
from app.settings import Settings
from pacs.multipart import Part

FIELD = "file"
"""Name of the form field that holds a radiograph."""
CHARSET_PART = "_charset_"
"""Field in which HTML forms name their encoding (RFC 7578, 4.6); it is ignored."""
FORM_TYPE = "multipart/form-data"
RAW_TYPES = frozenset({"", "image/png", "image/jpeg", "image/jpg", "application/dicom", "application/octet-stream"})
RAW_NAME = "radiograph"
"""Name in the reply for an upload without a file name."""
EXTENDED_NAME = re.compile(r";\s*filename\*\s*=\s*\"?([\w-]+)'[^']*'([^;\"\s]+)", re.IGNORECASE)
"""A file name with its encoding (RFC 8187), which some clients send in addition to the plain one or instead."""
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
MAX_NAME_CHARS = 255
"""Maximum number of characters in a file name."""
MAX_PARTS = 1000
"""Maximum number of parts that are read; far above the limit on files, so that that limit's error comes first."""


@dataclass(frozen=True)
class Upload:
    """One uploaded file: its name and its bytes."""

    name: str
    data: bytes


async def read_uploads(request: Request, settings: Settings, max_files: int) -> list[Upload]:
    """Read the uploaded images of one study: the multipart parts named `file`, or the raw body.

    Raises:
        MalformedRequestError: there is no image, an image is empty, a file name is unsafe, or the multipart is broken.
        PayloadTooLargeError: the body has more bytes than the limit; the rest is not read.
        UnsupportedContentTypeError: the declared type or encoding cannot be read.
        OutOfRangeError: there are more files than the limit, or a form field is unknown.
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    bounded = limit_body_size(request, settings)
    if content_type == FORM_TYPE:
        uploads = await _read_form(bounded, settings, max_files)
    elif content_type in RAW_TYPES:
        uploads = [Upload(RAW_NAME, await bounded.body())]
    else:
        raise UnsupportedContentTypeError(
            "This Content-Type cannot hold a radiograph; send multipart/form-data with parts named "
            f"'{FIELD}', or the image itself as image/png, image/jpeg or application/dicom."
        )
    for number, upload in enumerate(uploads, start=1):
        if not upload.data:
            raise MalformedRequestError(
                f"Radiograph {number} of {len(uploads)} is empty; send the bytes of a PNG, JPEG or DICOM file."
            )
    return uploads


def announced_size(request: Request, settings: Settings) -> int:
    """Return an upload's Content-Length, or the limit if the decoded size is not known in advance.

    Raises:
        PayloadTooLargeError: Content-Length is over the limit.
    """
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isdecimal() else settings.max_upload_bytes
    require_body_size(size, settings)
    return settings.max_upload_bytes if is_compressed(request) else size


async def _read_form(request: Request, settings: Settings, max_files: int) -> list[Upload]:
    files: list[Part] = []
    fields: list[str] = []
    async for part in iterate_parts(request, settings.max_upload_mib):
        field = _decode_text(_disposition(part).get(b"name", b""))
        if field == FIELD:
            files.append(part)
        elif field != CHARSET_PART:
            fields.append(field)
        if len(files) + len(fields) > MAX_PARTS:
            raise MalformedRequestError(f"The form has more than {MAX_PARTS} parts; send the radiographs of one study.")
    if not files:
        raise MalformedRequestError(f"The form has no part named '{FIELD}'; send each radiograph as one such part.")
    for field in fields:
        require_known(field, (FIELD,), "form field; options go into the query string, and each radiograph is a part")
    if len(files) > max_files:
        raise OutOfRangeError(f"{len(files)} files were sent; this endpoint takes at most {max_files}.")
    return [_upload(part) for part in files]


def _upload(part: Part) -> Upload:
    name = _file_name(part)
    if name is None and _is_text(part.data):
        raise MalformedRequestError(f"The part '{FIELD}' is a text field; send it as a file, with a file name.")
    name = name or RAW_NAME
    if name == ".." or len(name) > MAX_NAME_CHARS or CONTROL.search(name):
        raise MalformedRequestError(
            f"A file name may not have '..' as a folder, control characters or more than {MAX_NAME_CHARS} characters."
        )
    return Upload(name, part.data)


def _file_name(part: Part) -> str | None:
    """Return the file name without its folder; None if the part has no file name."""
    if extended := EXTENDED_NAME.search(part.headers.get("content-disposition", "")):
        charset, quoted = extended.groups()
        written = unquote(quoted, "utf-8" if charset.lower() == "utf-8" else "latin-1", errors="replace")
    else:
        plain = _disposition(part).get(b"filename")
        if plain is None:
            return None
        written = _decode_text(plain)
    # Browsers that upload a folder, and some Windows programs, send a path.
    folders = re.split(r"[/\\]", written)
    return ".." if ".." in folders else folders[-1]


def _disposition(part: Part) -> dict[bytes, bytes]:
    _, options = parse_options_header(part.headers.get("content-disposition", ""))
    return options


def _decode_text(written: bytes) -> str:
    try:
        return written.decode()
    except UnicodeDecodeError:
        return written.decode("latin-1")


def _is_text(data: bytes) -> bool:
    """Return whether the data is text. PNG and JPEG start with bytes that are invalid UTF-8, and DICOM with zeros."""
    try:
        return bool(data) and b"\0" not in data and bool(data.decode())
    except UnicodeDecodeError:
        return False
