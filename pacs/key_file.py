"""Loads a secret key from its file; creates the file if it is missing."""

import os
import secrets
from pathlib import Path

from pacs.errors import ConfigurationError
from xray.artifact import flush_to_disk

KEY_BYTES = 32
"""Length of a key: AES-256 needs 32 bytes."""
GROUP_AND_OTHERS = 0o077
"""Permission bits of all users except the file's owner."""


def load_or_create_key(path: Path) -> bytes:
    """Return the key in the key file `path`; create a missing file with a random key.

    The file has 64 hexadecimal digits and mode 0600.

    Raises:
        ConfigurationError: the file cannot be read or created, other users can read it, or it has no key.
    """
    try:
        if not path.exists():
            _make_key(path)
        mode, text = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"The key file {path} cannot be read or created: {error.strerror}.") from None
    if mode & GROUP_AND_OTHERS:
        raise ConfigurationError(f"The key file {path} can be read by other users; set its mode to 0600.")
    return _parse_key(text, path)


def _make_key(path: Path) -> None:
    """Create the file atomically: if several processes try, the first wins, and the file never exists without a key."""
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
        flush_to_disk(path.parent)  # data encrypted with the key may survive a power cut, so the key must too
    finally:
        draft.unlink(missing_ok=True)


def _parse_key(text: bytes, path: Path) -> bytes:
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"The key file {path} must contain {2 * KEY_BYTES} hexadecimal digits and nothing else."
        )
    return key
