"""Seals what is at rest and names what is looked for, so that neither tells anything to those without the key file."""

import hmac
import secrets
from hashlib import sha256
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pacs.key_file import key_of_file
from pacs.queue.errors import SealError

NONCE_BYTES = 12
"""Random for each seal; one key is good for 2^32 of them (NIST SP 800-38D, 8.3)."""
TAG_BYTES = 16
OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES
DIGEST_PURPOSE = b"osteon keyed digests"
"""Sets the key of `Seal.digest` apart from that of the cipher."""
LENGTH_BYTES = 8


class Seal:
    """AES-256-GCM and HMAC-SHA256. What was made for one purpose is of no use for another."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._digest_key = hmac.digest(key, DIGEST_PURPOSE, sha256)

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """By the key in `path`, which is made when missing; raises what `key_of_file` does."""
        return cls(key_of_file(path))

    def seal(self, data: bytes, purpose: str) -> bytes:
        """Nonce, cipher text and tag: `OVERHEAD_BYTES` more than `data`."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, purpose.encode())

    def unseal(self, sealed: bytes, purpose: str) -> bytes:
        """Raises SealError if `sealed` is damaged, of another key or for another purpose; which, nobody can tell."""
        if len(sealed) < OVERHEAD_BYTES:
            raise SealError("Stored bytes are cut short.")
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], purpose.encode())
        except InvalidTag:
            raise SealError("Stored bytes are damaged, or were sealed with another key.") from None

    def digest(self, purpose: str, *parts: bytes | str) -> bytes:
        """32 bytes that only this key makes of these parts in this order."""
        mac = hmac.new(self._digest_key, digestmod=sha256)
        for part in (purpose, *parts):
            data = part.encode() if isinstance(part, str) else part
            mac.update(len(data).to_bytes(LENGTH_BYTES))
            mac.update(data)
        return mac.digest()
