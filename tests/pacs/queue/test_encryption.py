"""Encrypted data can only be decrypted with its own key and for its own purpose."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacs.errors import ConfigurationError
from pacs.queue.encryption import OVERHEAD_BYTES, Cipher
from pacs.queue.errors import SealError

NAME = b"Canary^Bird"


def test_encrypted_data_is_unreadable_and_decrypts_to_the_original(tmp_path: Path) -> None:
    cipher = Cipher.from_key_file(tmp_path / "key")
    encrypted = cipher.encrypt(NAME, "a")
    assert NAME not in encrypted
    assert len(encrypted) == len(NAME) + OVERHEAD_BYTES
    assert encrypted != cipher.encrypt(NAME, "a")
    assert Cipher.from_key_file(tmp_path / "key").decrypt(encrypted, "a") == NAME


def test_damaged_truncated_or_foreign_data_is_refused(tmp_path: Path) -> None:
    cipher, other = Cipher.from_key_file(tmp_path / "key"), Cipher.from_key_file(tmp_path / "other")
    encrypted = cipher.encrypt(NAME, "a")
    for place in (0, len(encrypted) // 2, len(encrypted) - 1):
        damaged = encrypted[:place] + bytes([encrypted[place] ^ 1]) + encrypted[place + 1 :]
        with pytest.raises(SealError, match="damaged"):
            cipher.decrypt(damaged, "a")
    with pytest.raises(SealError, match="truncated"):
        cipher.decrypt(encrypted[:10], "a")
    with pytest.raises(SealError, match="another key"):
        other.decrypt(encrypted, "a")
    with pytest.raises(SealError):
        cipher.decrypt(encrypted, "b")


def test_key_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    key = tmp_path / "new" / "folder" / "key"
    Cipher.from_key_file(key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [path.name for path in key.parent.iterdir()] == ["key"]


def test_processes_that_make_the_key_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        ciphers = list(threads.map(lambda _: Cipher.from_key_file(tmp_path / "key"), range(32)))
    encrypted = ciphers[0].encrypt(NAME, "a")
    assert {cipher.decrypt(encrypted, "a") for cipher in ciphers} == {NAME}


def test_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    Cipher.from_key_file(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(ConfigurationError, match="0600"):
        Cipher.from_key_file(tmp_path / "key")


@pytest.mark.parametrize("text", [b"", b"hello", b"00" * 16, b"00" * 33, b"\xff" * 64])
def test_key_file_without_a_key_is_refused(tmp_path: Path, text: bytes) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_bytes(text)
    with pytest.raises(ConfigurationError, match="64 hexadecimal digits"):
        Cipher.from_key_file(key)


def test_key_file_in_a_place_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be read or created"):
        Cipher.from_key_file(tmp_path / "file" / "key")
