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
    """The queue's error for stored data that cannot be decrypted. The class name is the type of HTTP problems."""


class SpoolFullError(PacsError):
    """The queue's error for an instance that was refused because the storage limit is reached."""


class InstanceRefusedError(PacsError):
    """The queue's error for a refused instance, which contradicts its study; `reason` is its label in /metrics."""

    reason = ""


class OtherPatientError(InstanceRefusedError):
    """The queue's error for a study that belongs to another patient."""

    reason = "other patient"


class OtherContentError(InstanceRefusedError):
    """The queue's error for an instance whose SOP Instance UID is already stored with other content."""

    reason = "other content"


class LeaseLostError(PacsError):
    """The queue's error for a worker that wrote to a job whose lease it no longer holds; nothing was written."""


class JobsUnavailableError(PacsError):
    """The queue's error for a database of jobs that cannot be used at the moment."""
