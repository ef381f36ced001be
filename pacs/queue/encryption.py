"""Encryption of the queue's stored data, and keyed digests for searching its database."""

import hmac
import secrets
from hashlib import sha256
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pacs.key_file import load_or_create_key
from pacs.queue.errors import SealError

NONCE_BYTES = 12
"""Length of a nonce, in bytes. Nonces are random, so one key allows 2^32 encryptions (NIST SP 800-38D, 8.3)."""
TAG_BYTES = 16
"""Length of the AES-GCM authentication tag, in bytes."""
OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES
"""Bytes that encryption adds to the data."""
DIGEST_PURPOSE = b"osteon keyed digests"
"""Purpose of the derived key of `Cipher.digest`, so that encryption and digests do not share a key."""
LENGTH_BYTES = 8
"""Size of the length before each part of a digest, in bytes; without it, ("ab", "c") would equal ("a", "bc")."""


class Cipher:
    """The queue's AES-256-GCM encryption and HMAC-SHA256 digests, with one secret key.

    Both are bound to a purpose: data encrypted for one purpose cannot be decrypted for another.
    """

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self._digest_key = hmac.digest(key, DIGEST_PURPOSE, sha256)

    @classmethod
    def from_key_file(cls, path: Path) -> Self:
        """Load the encryption key from `path`, or create the file. Raises the same errors as `load_or_create_key`."""
        return cls(load_or_create_key(path))

    def encrypt(self, data: bytes, purpose: str) -> bytes:
        """Encrypt `data` for the queue; return nonce, ciphertext and tag: `OVERHEAD_BYTES` more than `data`."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, data, purpose.encode())

    def decrypt(self, encrypted: bytes, purpose: str) -> bytes:
        """Decrypt the queue's bytes that `encrypt` returned for the same purpose.

        Raises:
            SealError: the data is damaged, or was encrypted with another key or for another purpose.
        """
        if len(encrypted) < OVERHEAD_BYTES:
            raise SealError("The encrypted data is truncated.")
        try:
            return self._aead.decrypt(encrypted[:NONCE_BYTES], encrypted[NONCE_BYTES:], purpose.encode())
        except InvalidTag:
            raise SealError("The encrypted data is damaged or was encrypted with another key.") from None

    def digest(self, purpose: str, *parts: bytes | str) -> bytes:
        """Return the keyed digest (HMAC-SHA256) of the purpose and the parts in this order, 32 bytes."""
        mac = hmac.new(self._digest_key, digestmod=sha256)
        for part in (purpose, *parts):
            data = part.encode() if isinstance(part, str) else part
            mac.update(len(data).to_bytes(LENGTH_BYTES))
            mac.update(data)
        return mac.digest()
