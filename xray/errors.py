"""The errors that `xray` raises on purpose.

XrayError
├── InputError                   a radiograph or an option; the caller can correct it
│   ├── UnsupportedFormatError   the image format is not supported
│   ├── TooManyPixelsError       more pixels than the limit
│   ├── UnreadableImageError     a known format, but truncated or corrupt
│   ├── NoContentError           decodes, but shows nothing: it is constant or tiny
│   ├── MixedStudyError          the files belong to different studies or patients
│   └── OutOfScopeError          decodes, but is unlike the images that the network was trained on
├── DatasetError                 a folder in MURA layout; the researcher can correct it
├── ArtifactError                a checkpoint or gallery on disk is missing, damaged or of another kind
└── NoSpaceError                 a disk is full

Every message says what to change. Messages of `InputError` reach remote callers, so they never contain a path.
"""


class XrayError(Exception):
    """Base class of all errors that `xray` raises on purpose."""


class InputError(XrayError):
    """The error for a caller's input that cannot be used as it is."""


class UnsupportedFormatError(InputError):
    """The error for an image format that is not supported."""


class TooManyPixelsError(InputError):
    """The error for an image whose header announces more pixels than the limit."""


class UnreadableImageError(InputError):
    """The error for a truncated or corrupt image."""


class NoContentError(InputError):
    """The error for an image that decodes but shows nothing: it is constant or has only a few pixels."""


class MixedStudyError(InputError):
    """The error for radiographs that were sent as one study but belong to different studies or patients."""


class OutOfScopeError(InputError):
    """The error for an image that is not of the kind that the network was trained on."""


class DatasetError(XrayError):
    """The error for a dataset folder that is empty, incomplete or has unreadable images."""


class ArtifactError(XrayError):
    """The error for a checkpoint or gallery folder that is missing, damaged or does not fit."""


class NoSpaceError(XrayError):
    """The error for a disk that is full, or for a quota or a file-size limit that is reached."""


def too_many_pixels_message(size: str, max_pixels: int) -> str:
    """Return the message of the error `TooManyPixelsError`; `size` is a text such as "9000x9000 pixels"."""
    return f"The image is {size}; scale it down to at most {max_pixels:,} pixels."
