"""Extracts the DICOM file from a WADO-RS response, and encodes files for a STOW-RS request."""

from collections.abc import Sequence
from email.message import Message
from uuid import uuid4

from pacs.client.qido_json import MalformedResponseError
from pacs.errors import ArchiveUnavailableError

DICOM, RELATED = "application/dicom", "multipart/related"
PREAMBLE_BYTES = 128
"""Length of a DICOM file's preamble, which the signature "DICM" follows."""
END_OF_HEADER = b"\r\n\r\n"
"""Separates the header of a part from its content."""


def extract_dicom(content_type: str, body: bytes | bytearray) -> bytes:
    """Return the DICOM file in a response: its first part, which PS3.18 says is the only one.

    Some archives send the file without multipart wrapping, some of them with a wrong media type; both are accepted.

    Raises:
        ArchiveUnavailableError: the body ends before the part does.
        MalformedResponseError: the body is not a DICOM file in multipart/related.
    """
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() == DICOM:
        return bytes(body)
    if body.startswith(b"DICM", PREAMBLE_BYTES):
        return bytes(body)
    boundary = header.get_boundary("")
    if header.get_content_type() != RELATED or not boundary:
        raise MalformedResponseError(f"its response to WADO-RS has another media type than {RELATED} or {DICOM}.")
    delimiter = b"--" + boundary.encode()
    start = body.find(END_OF_HEADER, body.find(delimiter))
    if start < 0:
        raise MalformedResponseError(f"its {RELATED} response to WADO-RS has no part.")
    start += len(END_OF_HEADER)
    end = body.find(b"\r\n" + delimiter, start)
    if end < 0:  # without a Content-Length, only this shows that the body is incomplete
        raise ArchiveUnavailableError("The archive closed the connection before the end of an instance.")
    return bytes(memoryview(body)[start:end])


def encode_related(files: Sequence[bytes]) -> tuple[str, bytes]:
    """Return the content type and the body of a STOW-RS request with these files."""
    boundary = uuid4().hex
    head = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
    body = b"".join(part for file in files for part in (head, file, b"\r\n"))
    return f'{RELATED}; type="{DICOM}"; boundary="{boundary}"', body + f"--{boundary}--\r\n".encode()
