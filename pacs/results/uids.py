"""Derives the UIDs of results from a secret seed: a repeated result has the same UIDs, and they cannot be guessed.

An archive that receives a result twice therefore keeps only one.
"""

import hmac
import uuid
from hashlib import sha256
from typing import Literal

Kind = Literal["capture", "report"]

NAMESPACE = uuid.UUID("a8756faf-a097-487b-b477-fe4a94a215d3")
"""UUID namespace for UIDs that are the same at every site. If it changed, all devices would get new UIDs."""
UID_BYTES = 16
"""Size in bytes of the number in a UID that is derived from a UUID (PS3.5 B.2)."""


def series_uid(kind: Kind, seed: bytes) -> str:
    """Derive the Series Instance UID of a kind of result; an image and a report may not share a series."""
    return _secret_uid(seed, "series", kind)


def instance_uid(kind: Kind, seed: bytes) -> str:
    """Derive the SOP Instance UID of a kind of result from the secret seed."""
    return _secret_uid(seed, "instance", kind)


def tracking_uid(seed: bytes, subject: str) -> str:
    """Derive the tracking UID of an item in a report; `subject` names the item within the study."""
    return _secret_uid(seed, "tracking", subject)


def device_uid(version: str, checkpoint: str) -> str:
    """Derive the UID of the results' observer device: this software with that checkpoint, at any site."""
    return _uid("device", version, checkpoint)


def coding_scheme_uid() -> str:
    """Derive the UID of the private coding scheme in the results."""
    return _uid("coding scheme")


def _uid(*names: str) -> str:
    """Derive a UID of at most 44 characters from a UUID (PS3.5 B.2). Names must not contain a line feed."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(10).join(names)).int}"


def _secret_uid(seed: bytes, *names: str) -> str:
    """Derive a UID. Raises ValueError for an empty seed, because the UID could then be guessed."""
    if not seed:
        raise ValueError("the UIDs of results need a seed")
    digest = hmac.digest(seed, chr(10).join(names).encode(), sha256)
    return f"2.25.{int.from_bytes(digest[:UID_BYTES])}"
