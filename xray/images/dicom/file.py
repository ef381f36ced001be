"""Reads the tags of a DICOM file in any transfer syntax, within limits on their number and size."""

import io
import zlib

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from xray.errors import TooManyPixelsError, UnreadableImageError, UnsupportedFormatError, too_many_pixels_message
from xray.images.dicom.data_set_layout import (
    MAX_HEADER_BYTES,
    DataSetLayout,
    EncodedPixels,
    read_layout,
    require_tag_order,
)
from xray.images.dicom.layout_errors import SEND_WHOLE
from xray.images.dicom.values import read_uid, tag_name

SIGNATURE = b"DICM"
PREAMBLE_BYTES = 128
"""Number of bytes before the signature."""
META_GROUP = 0x0002
"""Group of the meta information tags, which say how the other tags are encoded."""
LAST_UID = 0x0020000E
"""Series Instance UID: the last tag that identifies an object."""
SUGGESTED_SYNTAX = ExplicitVRLittleEndian
"""A transfer syntax that every program can write, to suggest in error messages."""
DAMAGED_MESSAGE = f"The DICOM file is truncated or corrupt; {SEND_WHOLE}."


def is_dicom(data: bytes) -> bool:
    """Return whether the bytes begin like a DICOM file (PS3.10, 7.1)."""
    return data[PREAMBLE_BYTES : PREAMBLE_BYTES + len(SIGNATURE)] == SIGNATURE


def read_file(data: bytes, max_pixels: int) -> tuple[Dataset, EncodedPixels | None]:
    """Read all tags of a DICOM file, and the pixels without decoding them; None if there are no pixels.

    Raises:
        TooManyPixelsError: a deflated file inflates to more bytes than `max_pixels` need.
        UnsupportedFormatError: the transfer syntax is unknown.
        UnreadableImageError: the file is damaged; see `read_layout`.
    """
    meta, start = _read_meta(data)
    body = data[start:]
    if _is_deflated(meta):
        body, is_complete = _inflate(body, MAX_HEADER_BYTES + 2 * max_pixels)
        if not is_complete:
            raise TooManyPixelsError(
                too_many_pixels_message("larger when it is inflated than any of the allowed size", max_pixels)
            )
    layout = _check_layout(body, meta)
    return _parse_tags(body, layout, meta), layout.pixels


def read_uids(data: bytes) -> Dataset:
    """Read a DICOM file's tags up to the UIDs that identify its object; raises the same errors as `read_file`."""
    meta, body = _read_data_set(data)
    return _parse_tags(body, _check_layout(body, meta, last_tag=LAST_UID), meta)


def require_tags_in_order(data: bytes) -> None:
    """Refuse a DICOM file with repeated or unordered tags, even a truncated one; raises the errors of `read_file`."""
    meta, body = _read_data_set(data)
    require_tag_order(body, implicit=_is_implicit(meta), little=_is_little(meta))


def _read_data_set(data: bytes) -> tuple[FileMetaDataset, bytes]:
    """Return the meta information and the data set, of which at most `MAX_HEADER_BYTES` are inflated."""
    meta, start = _read_meta(data)
    return meta, _inflate(data[start:], MAX_HEADER_BYTES)[0] if _is_deflated(meta) else data[start:]


def _read_meta(data: bytes) -> tuple[FileMetaDataset, int]:
    """Return the meta information, which says how the tags are encoded, and the position of the data set.

    Raises:
        UnsupportedFormatError: the bytes are not DICOM, or the transfer syntax is unknown.
    """
    if not is_dicom(data):
        raise UnsupportedFormatError(
            "The bytes are not a DICOM file, because the preamble is missing; send the file unchanged."
        )
    stream = io.BytesIO(data)
    stream.seek(PREAMBLE_BYTES + len(SIGNATURE))
    meta = FileMetaDataset(read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != META_GROUP))
    written = read_uid(meta, "TransferSyntaxUID")
    syntax = UID(written or "")
    if syntax.is_private or not syntax.is_transfer_syntax:
        raise UnsupportedFormatError(unsupported_syntax_message(written))
    meta.TransferSyntaxUID = syntax
    return meta, stream.tell()


def unsupported_syntax_message(syntax: str | None) -> str:
    """Return the message that a DICOM file cannot be read in its transfer syntax; `syntax` is None if it names none."""
    says = f"is {syntax}, which is not supported" if syntax else "is missing or empty"
    return f"{tag_name('TransferSyntaxUID')} {says}; send the file as {SUGGESTED_SYNTAX.name} ({SUGGESTED_SYNTAX})."


def _is_deflated(meta: FileMetaDataset) -> bool:
    return meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian


def _inflate(deflated: bytes, limit: int) -> tuple[bytes, bool]:
    """Inflate the first `limit` bytes; return them, and whether these are all.

    Raises:
        UnreadableImageError: the data are truncated or not deflated.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(deflated, limit)
    except zlib.error as error:
        raise UnreadableImageError(f"The DICOM file is corrupt: it cannot be inflated; {SEND_WHOLE}.") from error
    if not inflater.eof and len(inflated) < limit:
        raise UnreadableImageError(f"The DICOM file is truncated: its deflated data have no end; {SEND_WHOLE}.")
    return inflated, inflater.eof


def _check_layout(body: bytes, meta: FileMetaDataset, last_tag: int | None = None) -> DataSetLayout:
    return read_layout(body, implicit=_is_implicit(meta), little=_is_little(meta), last_tag=last_tag)


def _parse_tags(body: bytes, layout: DataSetLayout, meta: FileMetaDataset) -> Dataset:
    """Parse the tags of the layout with pydicom.

    Raises:
        UnreadableImageError: pydicom finds different tags.
    """
    header = read_dataset(io.BytesIO(body[: layout.end]), _is_implicit(meta), _is_little(meta))
    if tuple(header.keys()) != layout.tags:
        raise UnreadableImageError(DAMAGED_MESSAGE)
    header.file_meta = meta
    return header


def _is_implicit(meta: FileMetaDataset) -> bool:
    return bool(meta.TransferSyntaxUID == ImplicitVRLittleEndian)


def _is_little(meta: FileMetaDataset) -> bool:
    return bool(meta.TransferSyntaxUID != ExplicitVRBigEndian)
