"""Errors of the queue, as one tree, grouped by who can resolve them.

PacsError
├── SealError               stored data is damaged, or was encrypted with another key
├── SpoolFullError          the storage limit is reached; the same may work later
├── InstanceRefusedError    an instance contradicts its study
│   ├── OtherPatientError       it belongs to another patient
│   └── OtherContentError       an instance with the same UID and other content is stored
├── LeaseLostError          the worker no longer holds the job: another has it, or the study has grown
└── JobsUnavailableError    the database does not respond or cannot be written; the same may work later

Faults that only an operator can fix, such as a key file that other users can read, are a `ConfigurationError`.
Messages appear in logs and job lists, so they never contain patient data, file contents or addresses with a password.
"""

from pacs.errors import PacsError


class SealError(PacsError):
    """Stored data cannot be decrypted. The class name is the type of HTTP problems."""


class SpoolFullError(PacsError):
    """An instance was refused because the storage limit is reached."""


class InstanceRefusedError(PacsError):
    """An instance was refused because it contradicts its study; `reason` is its label in /metrics."""

    reason = ""


class OtherPatientError(InstanceRefusedError):
    """The study belongs to another patient."""

    reason = "other patient"


class OtherContentError(InstanceRefusedError):
    """An instance with the same SOP Instance UID and other content is stored."""

    reason = "other content"


class LeaseLostError(PacsError):
    """A worker wrote to a job whose lease it no longer holds; nothing was written."""


class JobsUnavailableError(PacsError):
    """The database of jobs cannot be used at the moment."""
