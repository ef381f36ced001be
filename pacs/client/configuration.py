"""Reads and validates the TOML file of archives, which has one table for each archive."""

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pacs.errors import ConfigurationError

DEFAULT_TIMEOUT_SECONDS = 30.0
"""Timeout for the connection and for each wait for more bytes, in seconds."""
DEFAULT_REPLY_SECONDS = 120.0
"""Timeout for a whole response, in seconds: long enough for a large file on a slow network."""
ARCHIVE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Allowed archive names. They appear in messages and logs, so they have no special characters."""


@dataclass(frozen=True)
class ArchiveConfig:
    """The configuration of one archive: how to reach it.

    Secrets are read from their files at each use, so they can be rotated at any time.

    Attributes:
        url: DICOMweb root, such as `https://pacs.example.org/dicom-web`.
        user: user name for HTTP Basic; its password is in `password_file`.
        bearer_file: file with a bearer token, which replaces user and password.
        certificate: client certificate for mutual TLS, as PEM file; `key` is the file of its private key.
        ca: PEM bundle of the trusted certificate authorities; by default those of `certifi`.
        timeout_seconds: timeout for the connection and for each wait for more bytes of a response.
        reply_seconds: timeout for a whole response, from the request to its last byte.
        coerces_patient_ids: whether the archive changes the Patient ID of objects that it stores. If so, its ID is not
            compared with that of the radiographs before results are delivered.
    """

    url: str
    user: str | None = None
    password_file: Path | None = None
    bearer_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    reply_seconds: float = DEFAULT_REPLY_SECONDS
    coerces_patient_ids: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for invalid settings; `read_archives` adds the name of the table."""
        _require_plain_url(self.url)
        if (self.user is None) != (self.password_file is None):
            raise ValueError("`user` and `password_file` go together")
        if self.user is not None and (":" in self.user or not self.user.isprintable()):
            raise ValueError("`user` may not contain a colon or control characters, by the rules of HTTP Basic")
        if self.user is not None and self.bearer_file is not None:
            raise ValueError("give `user` and `password_file`, or `bearer_file`, not both")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("`certificate` and `key` go together")
        if self.certificate is not None and not self.url.startswith("https:"):
            raise ValueError("`certificate` needs an https `url`")
        if not 0 < self.timeout_seconds <= 3600:
            raise ValueError("`timeout_seconds` must be more than 0 and at most 3600")
        if not 0 < self.reply_seconds <= 3600:
            raise ValueError("`reply_seconds` must be more than 0 and at most 3600")


def read_archives(path: Path) -> dict[str, ArchiveConfig]:
    """Return the configurations in the archives' TOML file by name, in order; relative paths start at its folder.

    Raises:
        ConfigurationError: the file is invalid; the message names the table and the key.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}.") from None
    return {name: _archive(path, name, table) for name, table in tables.items()}


def _archive(path: Path, name: str, table: object) -> ArchiveConfig:
    if ARCHIVE_NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{path}: {name!r} is not a valid archive name; use up to 64 letters, digits, - and _."
        )
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: {name!r} is outside of a table; put it below a line [NAME].")
    known = [field.name for field in fields(ArchiveConfig)]
    unknown = [key for key in table if key not in known]  # msgspec only rejects them for its own structs
    if unknown:
        raise ConfigurationError(
            f"{path}: [{name}] has an unknown key {unknown[0]!r}; the known keys are {', '.join(known)}."
        )

    def decode(kind: type, value: Any) -> Path:
        if kind is not Path or not isinstance(value, str) or not value:
            raise ValueError("Expected a path")
        return path.parent / value

    try:
        config = msgspec.convert(table, ArchiveConfig, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: [{name}]: {error}.") from None
    for key in known:
        file = getattr(config, key)
        if isinstance(file, Path) and not file.is_file():
            raise ConfigurationError(f"{path}: [{name}]: `{key}` names {file}, which is not a file.")
    return config


def _require_plain_url(url: str) -> None:
    """Raise ValueError unless the URL is a plain DICOMweb root. Messages omit the URL, which may contain a password."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("`url` must be the DICOMweb root, http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("`url` may not contain user or password: use `user` and `password_file`")
    if parts.query or parts.fragment:
        raise ValueError("`url` may not contain a query or fragment")
