"""A path in, the secret key that its file holds out; the file is made when it is missing."""

import os
import secrets
from pathlib import Path

from pacs.errors import ConfigurationError
from xray.artifact import flush_to_disk

KEY_BYTES = 32
OTHERS = 0o077
"""Permission bits of everybody but the file's owner."""


def key_of_file(path: Path) -> bytes:
    """The key in `path`: 64 hexadecimal digits, readable by its owner alone.

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
    return _key_in(text, path)


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
        flush_to_disk(path.parent)  # what was made with it may outlive a power cut, and so must it
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
