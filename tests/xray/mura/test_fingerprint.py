"""A changed file is detected even if its times were restored."""

import os
from pathlib import Path

import pytest

from xray.mura import fingerprint as fingerprint_module
from xray.mura.fingerprint import UNREADABLE, FileContent, compute_digests, is_unchanged, read_content


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "image1.png"
    file.write_bytes(b"first")
    return file


@pytest.fixture(params=["settled", "changed a moment ago"])
def content(request: pytest.FixtureRequest, file: Path, monkeypatch: pytest.MonkeyPatch) -> FileContent:
    """The content of a file, with and without a stamp."""
    monkeypatch.setattr(fingerprint_module, "MIN_AGE_NS", -1 if request.param == "settled" else 10**18)
    content = read_content(file)[1]
    assert (content.stamp is not None) == (request.param == "settled")
    return content


def test_file_that_nobody_touched_is_unchanged(file: Path, content: FileContent) -> None:
    assert is_unchanged(file, content)


def test_replacement_of_equal_size_and_restored_time_is_noticed(
    file: Path, content: FileContent, tmp_path: Path
) -> None:
    status = file.stat()
    (tmp_path / "other").write_bytes(b"other")
    os.utime(tmp_path / "other", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(tmp_path / "other", file)
    assert not is_unchanged(file, content)


def test_file_rewritten_in_place_with_restored_time_is_noticed(file: Path, content: FileContent) -> None:
    status = file.stat()
    while file.stat().st_ctime_ns == status.st_ctime_ns:  # the clock of the file system ticks a few times a second
        file.write_bytes(b"other")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not is_unchanged(file, content)


def test_copy_with_other_times_is_unchanged(file: Path, content: FileContent) -> None:
    os.utime(file, (0, 0))
    assert is_unchanged(file, content)


def test_file_that_is_gone_is_changed_and_has_no_digest(file: Path, content: FileContent) -> None:
    file.unlink()
    assert not is_unchanged(file, content)
    assert compute_digests([file]) == [UNREADABLE]


def test_settled_file_is_not_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint_module, "MIN_AGE_NS", -1)
    content = read_content(file)[1]
    monkeypatch.setattr(fingerprint_module, "sha256", lambda file: pytest.fail("it was read"))
    assert is_unchanged(file, content)
