"""Extracts the DICOM file from a WADO-RS response."""

from email.message import Message

from python_multipart.exceptions import FormParserError

from pacs.client.qido_json import MalformedResponseError
from pacs.errors import ArchiveUnavailableError
from pacs.multipart import DICOM, RELATED, PartParser

PREAMBLE_BYTES = 128
"""Length of a DICOM file's preamble, in bytes; the signature "DICM" follows it."""


def extract_dicom(content_type: str, body: bytes) -> bytes:
    """Return the DICOM file in a WADO-RS response: its first part, which PS3.18 says is the only one.

    Some archives send the file without multipart, even with a wrong media type; both are accepted.

    Raises:
        ArchiveUnavailableError: the body ends before the part does.
        MalformedResponseError: the body is not a DICOM file in multipart/related.
    """
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() == DICOM or body.startswith(b"DICM", PREAMBLE_BYTES):
        return body
    boundary = header.get_boundary("").encode()
    if header.get_content_type() != RELATED or not boundary:
        raise MalformedResponseError(f"its response to WADO-RS has another media type than {RELATED} or {DICOM}.")
    start = body.find(b"--" + boundary)
    parser = PartParser(boundary, max_part_bytes=len(body))
    try:
        parts = parser.feed(body[start:]) if start >= 0 else []  # skip the text before the first boundary
    except FormParserError as error:
        raise MalformedResponseError(f"its {RELATED} response to WADO-RS is malformed.") from error
    if parts:
        return parts[0].data
    if start < 0 or parser.ended:
        raise MalformedResponseError(f"its {RELATED} response to WADO-RS has no part.")
    # Without a Content-Length, only this shows that the body is incomplete.
    raise ArchiveUnavailableError("The archive closed the connection before the end of an instance.")
