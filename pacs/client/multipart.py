"""Finds the DICOM file in the body of a WADO-RS answer, and wraps files for STOW-RS."""

from collections.abc import Sequence
from email.message import Message
from uuid import uuid4

from pacs.client.qido_json import AnswerError
from pacs.errors import ArchiveUnavailableError

DICOM, RELATED = "application/dicom", "multipart/related"
PREAMBLE = 128
END_OF_HEADER = b"\r\n\r\n"


def only_part(content_type: str, body: bytes | bytearray) -> bytes:
    """The first part, which PS3.18 says is the only one; or the body itself where an archive leaves the wrapping off
    and maybe names the file's type wrongly.

    Raises:
        ArchiveUnavailableError: the body ends before the part does.
        AnswerError: it is no DICOM file in multipart/related.
    """
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() == DICOM:
        return bytes(body)
    if body.startswith(b"DICM", PREAMBLE):
        return bytes(body)
    boundary = header.get_boundary("")
    if header.get_content_type() != RELATED or not boundary:
        raise AnswerError(f"it answers WADO-RS with another media type than {RELATED} or {DICOM}.")
    delimiter = b"--" + boundary.encode()
    start = body.find(END_OF_HEADER, body.find(delimiter))
    if start < 0:
        raise AnswerError(f"its {RELATED} answer to WADO-RS has no part.")
    start += len(END_OF_HEADER)
    end = body.find(b"\r\n" + delimiter, start)
    if end < 0:  # where the connection's end is the body's, this alone tells that something is missing
        raise ArchiveUnavailableError("An instance came without its end; the archive broke off.")
    return bytes(memoryview(body)[start:end])


def related(files: Sequence[bytes]) -> tuple[str, bytes]:
    """The content type and the body that store these files."""
    boundary = uuid4().hex
    head = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
    body = b"".join(part for file in files for part in (head, file, b"\r\n"))
    return f'{RELATED}; type="{DICOM}"; boundary="{boundary}"', body + f"--{boundary}--\r\n".encode()
