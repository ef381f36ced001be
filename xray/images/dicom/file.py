"""Reads the tags of a DICOM file: each of them once, whatever the transfer syntax, and no more than is allowed."""

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

from xray.errors import TooManyPixelsError, UnreadableImageError, UnsupportedFormatError
from xray.images.dicom.pixel_layout import MAX_HEADER, SEND_WHOLE, Layout, Pixels, layout_of, require_order
from xray.images.dicom.tags import tag_name, uid
from xray.images.radiograph import too_many

SIGNATURE = b"DICM"
PREAMBLE = 128
"""Bytes before it."""
META_GROUP = 0x0002
LAST_UID = 0x0020000E
"""Series Instance UID: the last tag of those that identify an object."""
PLAIN = ExplicitVRLittleEndian
"""What everybody can write."""
DAMAGED = f"The DICOM file is truncated or corrupt; {SEND_WHOLE}."


def is_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM file does (PS3.10)."""
    return data[PREAMBLE : PREAMBLE + len(SIGNATURE)] == SIGNATURE


def read_file(data: bytes, max_pixels: int) -> tuple[Dataset, Pixels | None]:
    """All tags, and the pixels still encoded; a deflated file is inflated within limits.

    Raises:
        TooManyPixelsError: it inflates to more than `max_pixels` take.
        UnsupportedFormatError: a transfer syntax that is not known.
        UnreadableImageError: see `layout_of`.
    """
    meta, start = _meta(data)
    body = data[start:]
    if _is_deflated(meta):
        body, whole = _inflated(body, MAX_HEADER + 2 * max_pixels)
        if not whole:
            raise TooManyPixelsError(too_many("larger when it is inflated than any of the allowed size", max_pixels))
    layout = _layout(body, meta)
    return _read(body, layout, meta), layout.pixels


def read_uids(data: bytes) -> Dataset:
    """The tags up to the UIDs that identify an object; raises as `read_file` does."""
    meta, body = _beginning(data)
    return _read(body, _layout(body, meta, last=LAST_UID), meta)


def require_tags_in_order(data: bytes) -> None:
    """Refuse a file with a tag twice or out of order, be it whole or not; raises as `read_file` does."""
    meta, body = _beginning(data)
    require_order(body, implicit=_is_implicit(meta), little=_is_little(meta))


def _beginning(data: bytes) -> tuple[FileMetaDataset, bytes]:
    """The data set, of a deflated one no more than the tags before the pixels may take."""
    meta, start = _meta(data)
    return meta, _inflated(data[start:], MAX_HEADER)[0] if _is_deflated(meta) else data[start:]


def _meta(data: bytes) -> tuple[FileMetaDataset, int]:
    """How the tags are written, and the byte where they begin.

    Raises:
        UnsupportedFormatError: in a way that is not known.
    """
    if not is_dicom(data):
        raise UnsupportedFormatError(
            "The bytes are no DICOM file: its preamble is missing; send the file as it is stored."
        )
    stream = io.BytesIO(data)
    stream.seek(PREAMBLE + len(SIGNATURE))
    meta = FileMetaDataset(read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != META_GROUP))
    written = uid(meta, "TransferSyntaxUID")
    syntax = UID(written or "")
    if syntax.is_private or not syntax.is_transfer_syntax:
        raise UnsupportedFormatError(unread(written))
    meta.TransferSyntaxUID = syntax
    return meta, stream.tell()


def unread(syntax: str | None) -> str:
    """The sentence about a transfer syntax that cannot be read."""
    says = f"is {syntax}, which is none that is read here" if syntax else "is missing or empty"
    return f"{tag_name('TransferSyntaxUID')} {says}; send the file as {PLAIN.name} ({PLAIN})."


def _is_deflated(meta: FileMetaDataset) -> bool:
    return meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian


def _inflated(deflated: bytes, limit: int) -> tuple[bytes, bool]:
    """The first `limit` bytes, and whether these are all.

    Raises:
        UnreadableImageError: cut short, or not deflated.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(deflated, limit)
    except zlib.error as error:
        raise UnreadableImageError(f"The DICOM file is corrupt: it cannot be inflated; {SEND_WHOLE}.") from error
    if not inflater.eof and len(inflated) < limit:
        raise UnreadableImageError(f"The DICOM file is truncated: its deflated data have no end; {SEND_WHOLE}.")
    return inflated, inflater.eof


def _layout(body: bytes, meta: FileMetaDataset, last: int | None = None) -> Layout:
    return layout_of(body, implicit=_is_implicit(meta), little=_is_little(meta), last=last)


def _read(body: bytes, layout: Layout, meta: FileMetaDataset) -> Dataset:
    """The tags of the layout.

    Raises:
        UnreadableImageError: pydicom finds others.
    """
    header = read_dataset(io.BytesIO(body[: layout.end]), _is_implicit(meta), _is_little(meta))
    if tuple(header.keys()) != layout.tags:
        raise UnreadableImageError(DAMAGED)
    header.file_meta = meta
    return header


def _is_implicit(meta: FileMetaDataset) -> bool:
    return bool(meta.TransferSyntaxUID == ImplicitVRLittleEndian)


def _is_little(meta: FileMetaDataset) -> bool:
    return bool(meta.TransferSyntaxUID != ExplicitVRBigEndian)
