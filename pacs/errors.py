"""What can go wrong between the service and a hospital's archive, as one tree, told apart by what helps.

XrayError
└── PacsError
    ├── ConfigurationError         the file of archives, or a file that it names; the operator can mend it
    ├── ArchiveUnavailableError    no answer, or one of 408, 429 or 5xx; the same may work later
    ├── ArchiveRefusedError        the archive says no, or talks something else; the same will not work again
    │   └── TooLargeError          its answer has more bytes than are taken
    ├── StudyMissingError          the archive does not have that study
    └── ResultsError               the results of a study cannot be written or read

Messages reach logs and job lists: they may hold the archive's name and UIDs, never a patient, a query or a secret.
"""

from xray.errors import XrayError


class PacsError(XrayError):
    """Base of all errors raised on purpose by `pacs`."""


class ConfigurationError(PacsError):
    """The archives' configuration, a certificate or a secret on disk cannot be used."""


class ArchiveUnavailableError(PacsError):
    """The archive did not answer, or said that it cannot at the moment."""


class ArchiveRefusedError(PacsError):
    """The archive refused, or answered what is no DICOMweb."""


class TooLargeError(ArchiveRefusedError):
    """An answer has more bytes than are taken."""


class StudyMissingError(PacsError):
    """The archive does not have the study."""


class ResultsError(PacsError):
    """The results of a study cannot be written, or not be read again."""
