"""What can go wrong with the studies on their way, told apart by who can help.

PacsError
├── SealError               bytes at rest are damaged, or were sealed with another key
├── SpoolFullError          as much is on its way as may be; later there is room again
├── InstanceRefusedError    an instance contradicts what its study has
│   ├── OtherPatientError       it is of another patient
│   └── OtherContentError       an instance of the same UID has another content
├── LeaseLostError          the job is not this worker's any more: another has it, or its study has grown
└── JobsUnavailableError    the database does not answer, or cannot be written; the same may work later

What only an operator can mend, such as a key file that others can read, is a `ConfigurationError`.
Messages reach logs and job lists: no patient, no bytes, no address with a password.
"""

from pacs.errors import PacsError


class SealError(PacsError):
    """Sealed bytes cannot be opened."""


class SpoolFullError(PacsError):
    """An instance was not taken because the limit of bytes on their way is reached."""


class InstanceRefusedError(PacsError):
    """An instance was not taken because it contradicts its study; `reason` says how, in the words of /metrics."""

    reason = ""


class OtherPatientError(InstanceRefusedError):
    """The study is another patient's."""

    reason = "other patient"


class OtherContentError(InstanceRefusedError):
    """An instance of that SOP Instance UID has come before, with another content."""

    reason = "other content"


class LeaseLostError(PacsError):
    """A worker writes to a job whose lease it no longer holds; nothing was written."""


class JobsUnavailableError(PacsError):
    """The database of jobs cannot be used at the moment."""
