"""UIDs in, names that only the holder of a key can tell to be theirs out."""

import hmac
from pathlib import Path
from typing import Self

from pacs.key_file import load_or_create_key

DIGITS = 32
"""Hexadecimal, so 128 bits: no two instances of any archive will ever share a name."""


class Pseudonyms:
    """HMAC-SHA256 of a UID, cut to `DIGITS`: the same one always has the same name, and no name leads back."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """By the key in `path`, which is made when missing; raises what `load_or_create_key` does."""
        return cls(load_or_create_key(path))

    def name(self, uid: str) -> str:
        return hmac.digest(self._key, uid.encode(), "sha256").hex()[:DIGITS]
