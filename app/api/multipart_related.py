"""Parses multipart requests while they arrive: forms (RFC 7578) and multipart/related (RFC 2387)."""

from collections.abc import AsyncIterator

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from app.errors import MalformedRequestError, PayloadTooLargeError, UnsupportedContentTypeError
from app.settings import MEBIBYTE
from pacs.multipart import RELATED, Part, PartParser, PartTooLargeError

OVERHEAD_BYTES = 64 * 1024
"""Allowance for the headers and boundary of one part, in bytes."""


async def iterate_related_parts(request: Request, part_type: str, max_part_mib: int) -> AsyncIterator[bytes]:
    """Yield the bodies of the parts of a multipart/related request while it arrives.

    Args:
        part_type: the media type that all parts must have, such as application/dicom.

    Raises:
        UnsupportedContentTypeError: the request is not multipart/related, or declares parts of another type.
        MalformedRequestError: the body is not multipart, or is cut off.
        PayloadTooLargeError: a part has more bytes than the limit; the rest is not read.
    """
    media, options = parse_options_header(request.headers.get("content-type", ""))
    if media != RELATED.encode() or options.get(b"type", part_type.encode()).lower() != part_type.encode():
        raise UnsupportedContentTypeError(f'Send {RELATED}; type="{part_type}"; boundary=… with a file in each part.')
    async for part in iterate_parts(request, max_part_mib):
        yield part.data


async def iterate_parts(request: Request, max_part_mib: int) -> AsyncIterator[Part]:
    """Yield the parts of a multipart/related request, or of a form, while it arrives, up to its last boundary.

    Any other multipart request works as well.

    Raises:
        MalformedRequestError: the body is not multipart, or is cut off.
        PayloadTooLargeError: a part has more bytes than the limit; the rest is not read.
    """
    _, options = parse_options_header(request.headers.get("content-type", ""))
    if not options.get(b"boundary"):
        raise MalformedRequestError("The Content-Type of this multipart body has no boundary parameter.")
    max_part_bytes = max_part_mib * MEBIBYTE
    too_large = PayloadTooLargeError(f"A part is larger than {max_part_mib} MiB; send smaller files.")
    unfinished = 0
    try:
        parser = PartParser(options[b"boundary"], max_part_bytes)
        async for chunk in request.stream():
            unfinished += len(chunk)
            for part in parser.feed(chunk):
                unfinished = 0
                yield part
            if parser.ended:
                return
            if unfinished > max_part_bytes + OVERHEAD_BYTES + len(chunk):
                raise too_large
    except PartTooLargeError as error:
        raise too_large from error
    except FormParserError as error:
        raise MalformedRequestError(
            "The body is not multipart with the boundary that its Content-Type names."
        ) from error
    raise MalformedRequestError("The body ends before its last boundary; send all of it.")
