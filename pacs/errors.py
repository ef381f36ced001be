"""Errors of the PACS integration, as one tree, grouped by who can resolve them.

XrayError
└── PacsError
    ├── ConfigurationError         the archives' configuration or a file named in it is invalid; the operator can fix it
    ├── ArchiveUnavailableError    no response, or status 408, 425, 429 or 5xx; the same may work later
    ├── ArchiveRefusedError        the archive refuses, or does not speak DICOMweb; a retry does not help
    │   └── TooLargeError          the response exceeds the size limit
    ├── StudyMissingError          the archive does not have that study
    └── ResultsError               the results of a study cannot be rendered or read

Messages appear in logs and job lists. They may contain an archive's name and UIDs, but never patient data or secrets.
"""

from xray.errors import XrayError


class PacsError(XrayError):
    """Base class of all errors that `pacs` raises on purpose."""


class ConfigurationError(PacsError):
    """The PACS error for a configuration of archives, a certificate or a secret on disk that cannot be used."""


class ArchiveUnavailableError(PacsError):
    """The PACS error for an archive that did not respond, or reported that it is temporarily unavailable."""


class ArchiveRefusedError(PacsError):
    """The PACS error for an archive that refused the request, or whose response is not valid DICOMweb."""


class TooLargeError(ArchiveRefusedError):
    """The PACS error for an archive's response that exceeds the size limit."""


class StudyMissingError(PacsError):
    """The PACS error for a study that the archive does not have."""


class ResultsError(PacsError):
    """The PACS error for results of a study that cannot be rendered or read."""
