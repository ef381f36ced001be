"""A key file and bytes in, sealed bytes out, and back: what is at rest tells nobody anything without the key."""

import os
import secrets
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pacs.errors import ConfigurationError
from pacs.job_errors import SealError
from xray.artifact import flush_to_disk

KEY_BYTES = 32
NONCE_BYTES = 12
"""Random for each seal; one key is good for 2^32 of them (NIST SP 800-38D, 8.3)."""
TAG_BYTES = 16
OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES
OTHERS = 0o077
"""Permission bits of everybody but the file's owner."""


class Seal:
    """AES-256-GCM. Bytes that were sealed for one purpose do not open for another."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The key in `path`: 64 hexadecimal digits, readable by its owner alone. It is made when missing.

        Raises:
            ConfigurationError: it cannot be read or made, others can read it, or it holds no key.
        """
        try:
            if not path.exists():
                _make_key(path)
            mode, text = path.stat().st_mode, path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"The key file {path} cannot be read or made: {error.strerror}.") from None
        if mode & OTHERS:
            raise ConfigurationError(f"The key file {path} is open to others; give it mode 0600.")
        return cls(_key_in(text, path))

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


def _make_key(path: Path) -> None:
    """Whoever links first has made it; a file is never there without its key, however this process ends."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(f"{secrets.token_hex(KEY_BYTES)}\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        flush_to_disk(path.parent)  # studies that are sealed with it may outlive a power cut, and so must it
    finally:
        draft.unlink(missing_ok=True)


def _key_in(text: bytes, path: Path) -> bytes:
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"The key file {path} must hold {2 * KEY_BYTES} hexadecimal digits and nothing else.")
    return key
