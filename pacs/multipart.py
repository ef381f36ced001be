"""Bodies of multipart/related (PS3.18 8.6.1.2): the file in one that an archive sends, and one of files to send."""

from collections.abc import Sequence
from email.message import Message
from uuid import uuid4

from pacs.errors import ArchiveUnavailableError

DICOM, RELATED = "application/dicom", "multipart/related"
END_OF_HEADER = b"\r\n\r\n"


def only_part(content_type: str, body: bytes | bytearray) -> bytes:
    """The first part, which PS3.18 says is the only one; or the body itself where an archive leaves the wrapping off.

    Raises:
        ArchiveUnavailableError: the body ends before the part does.
        ValueError: it is no DICOM file in multipart/related.
    """
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() == DICOM:
        return bytes(body)
    boundary = header.get_boundary("")
    if header.get_content_type() != RELATED or not boundary:
        raise ValueError(f"neither {RELATED} nor {DICOM}")
    delimiter = b"--" + boundary.encode()
    start = body.find(END_OF_HEADER, body.find(delimiter))
    if start < 0:
        raise ValueError("no part with a header")
    start += len(END_OF_HEADER)
    end = body.find(b"\r\n" + delimiter, start)
    if end < 0:  # where the connection's end is the body's, this alone tells that something is missing
        raise ArchiveUnavailableError("An instance came without its end; the archive broke off.")
    return bytes(memoryview(body)[start:end])


def related(files: Sequence[bytes]) -> tuple[str, bytes]:
    """The content type and body that hold DICOM files, each byte for byte."""
    boundary = uuid4().hex
    head = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
    body = b"".join(part for file in files for part in (head, file, b"\r\n")) + f"--{boundary}--\r\n".encode()
    return f'{RELATED}; type="{DICOM}"; boundary={boundary}', body
