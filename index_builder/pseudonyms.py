"""Replaces the UIDs of an archive by pseudonyms that only the holder of a key can link to them."""

import hmac
from pathlib import Path
from typing import Self

from pacs.key_file import load_or_create_key

PSEUDONYM_DIGITS = 32
"""Hexadecimal digits: 128 bits, so that two instances never share a pseudonym."""


class Pseudonyms:
    """HMAC-SHA256 of a UID under a key, cut to `PSEUDONYM_DIGITS`; the same UID always has the same pseudonym."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Use the key in `path`, which is created if it is missing. Raises what `load_or_create_key` raises."""
        return cls(load_or_create_key(path))

    def name(self, uid: str) -> str:
        """The pseudonym of a study or an instance."""
        return hmac.digest(self._key, uid.encode(), "sha256").hex()[:PSEUDONYM_DIGITS]
