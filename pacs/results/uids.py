"""The UIDs of results: the same question has the same answer, and nobody without the site's key can work them out.

An archive that is sent a result twice keeps one, because both bear the same UIDs.
"""

import hmac
import uuid
from hashlib import sha256
from typing import Literal

Kind = Literal["capture", "report"]

NAMESPACE = uuid.UUID("a8756faf-a097-487b-b477-fe4a94a215d3")
"""Of the names that are the same at every site; another would give all devices new UIDs."""
UID_BYTES = 16
"""PS3.5 B.2 makes one number of that many."""


def series_uid(kind: Kind, seed: bytes) -> str:
    """Each kind of result has a series of its own: an image and a report may not share one."""
    return _secret_uid(seed, "series", kind)


def instance_uid(kind: Kind, seed: bytes) -> str:
    """One object of each kind for one seed."""
    return _secret_uid(seed, "instance", kind)


def tracking_uid(seed: bytes, subject: str) -> str:
    """Of one thing that a report speaks of; `subject` names it within the study."""
    return _secret_uid(seed, "tracking", subject)


def device_uid(version: str, checkpoint: str) -> str:
    """Of the observer: this software with that network, wherever it runs."""
    return _uid("device", version, checkpoint)


def coding_scheme_uid() -> str:
    """Of the codes that no standard has."""
    return _uid("coding scheme")


def _uid(*names: str) -> str:
    """PS3.5 B.2: a UUID as one number, 44 characters at most; no name may hold the line feed between them."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(10).join(names)).int}"


def _secret_uid(seed: bytes, *names: str) -> str:
    """Raises ValueError without a seed, by which anybody could work the UID out."""
    if not seed:
        raise ValueError("a finding without its seed has no UIDs")
    digest = hmac.digest(seed, chr(10).join(names).encode(), sha256)
    return f"2.25.{int.from_bytes(digest[:UID_BYTES])}"
