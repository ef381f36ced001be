"""A study and a checkpoint in, the UIDs of their results out: the same question has the same answer.

An archive that is sent a result twice keeps one, because both bear the same UIDs.
"""

import uuid
from typing import Literal

Kind = Literal["capture", "report"]

NAMESPACE = uuid.UUID("a8756faf-a097-487b-b477-fe4a94a215d3")
"""Of every name that is made a UID here; another would give all results new UIDs."""


def series_uid(kind: Kind, study_uid: str, checkpoint: str) -> str:
    """Each kind of result has a series of its own: an image and a report may not share one."""
    return _uid("series", kind, study_uid, checkpoint)


def instance_uid(kind: Kind, study_uid: str, checkpoint: str) -> str:
    """One object of each kind for one study and checkpoint."""
    return _uid("instance", kind, study_uid, checkpoint)


def tracking_uid(study_uid: str, checkpoint: str, subject: str) -> str:
    """Of one thing that a report speaks of; `subject` names it within the study."""
    return _uid("tracking", study_uid, checkpoint, subject)


def device_uid(version: str, checkpoint: str) -> str:
    """Of the observer: this software with that network, wherever it runs."""
    return _uid("device", version, checkpoint)


def coding_scheme_uid() -> str:
    """Of the codes that no standard has."""
    return _uid("coding scheme")


def _uid(*names: str) -> str:
    """PS3.5 B.2: a UUID as one number, 44 characters at most; no name may hold the line feed between them."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(10).join(names)).int}"
