"""Sealed bytes open with their own key, for their own purpose, and otherwise not at all."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacs.errors import ConfigurationError
from pacs.queue.encryption import OVERHEAD_BYTES, Seal
from pacs.queue.errors import SealError

NAME = b"Canary^Bird"


def test_sealed_bytes_come_back_and_tell_nothing(tmp_path: Path) -> None:
    seal = Seal.of_file(tmp_path / "key")
    sealed = seal.seal(NAME, "a")
    assert NAME not in sealed
    assert len(sealed) == len(NAME) + OVERHEAD_BYTES
    assert sealed != seal.seal(NAME, "a")
    assert Seal.of_file(tmp_path / "key").unseal(sealed, "a") == NAME


def test_damaged_cut_or_foreign_bytes_do_not_open(tmp_path: Path) -> None:
    seal, other = Seal.of_file(tmp_path / "key"), Seal.of_file(tmp_path / "other")
    sealed = seal.seal(NAME, "a")
    for place in (0, len(sealed) // 2, len(sealed) - 1):
        damaged = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        with pytest.raises(SealError, match="damaged"):
            seal.unseal(damaged, "a")
    with pytest.raises(SealError, match="cut short"):
        seal.unseal(sealed[:10], "a")
    with pytest.raises(SealError, match="another key"):
        other.unseal(sealed, "a")
    with pytest.raises(SealError):
        seal.unseal(sealed, "b")


def test_key_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    key = tmp_path / "new" / "folder" / "key"
    Seal.of_file(key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [path.name for path in key.parent.iterdir()] == ["key"]


def test_processes_that_make_the_key_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        seals = list(threads.map(lambda _: Seal.of_file(tmp_path / "key"), range(32)))
    sealed = seals[0].seal(NAME, "a")
    assert {seal.unseal(sealed, "a") for seal in seals} == {NAME}


def test_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    Seal.of_file(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(ConfigurationError, match="0600"):
        Seal.of_file(tmp_path / "key")


@pytest.mark.parametrize("text", [b"", b"hello", b"00" * 16, b"00" * 33, b"\xff" * 64])
def test_key_file_without_a_key_is_refused(tmp_path: Path, text: bytes) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_bytes(text)
    with pytest.raises(ConfigurationError, match="64 hexadecimal digits"):
        Seal.of_file(key)


def test_key_file_in_a_place_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be read or made"):
        Seal.of_file(tmp_path / "file" / "key")
