"""Replaces the UIDs of an archive with pseudonyms; only with the key can they be linked to the UIDs."""

import hmac
from pathlib import Path
from typing import Self

from pacs.key_file import load_or_create_key

PSEUDONYM_DIGITS = 32
"""Number of hexadecimal digits: 128 bits, so that two instances never have the same pseudonym."""


class Pseudonyms:
    """Pseudonyms: the HMAC-SHA256 of a UID with a key, cut to `PSEUDONYM_DIGITS`; equal UIDs have equal pseudonyms."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Make pseudonyms with the key in `path`, created if it is missing. Raises what `load_or_create_key` raises."""
        return cls(load_or_create_key(path))

    def name(self, uid: str) -> str:
        """Return the pseudonym of a study or an instance."""
        return hmac.digest(self._key, uid.encode(), "sha256").hex()[:PSEUDONYM_DIGITS]
