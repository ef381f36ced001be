"""A user without a home folder is told what to set."""

import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.waiting import HUNG_SECONDS
from xray.errors import InputError
from xray.user_folders import cache_folder, data_folder

pytestmark = pytest.mark.slow

BOTH = pytest.mark.parametrize("folder", [cache_folder, data_folder])
HOMELESS = """
import pwd, runpy, sys

def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def unknown(uid: int) -> None:
    raise KeyError(uid)


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@BOTH
def test_user_without_home_is_told_what_to_set(homeless: None, folder: Callable[[], Path]) -> None:
    with pytest.raises(InputError, match="no home folder; set HOME"):
        folder()


@BOTH
def test_folder_of_the_environment_needs_no_home(
    homeless: None, folder: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder() == tmp_path / "osteon"


CRAWL = [f"--{name}=x" for name in ("pacs", "checkpoint", "reference-gallery", "out", "archives")]


@pytest.mark.parametrize("command", [["index_builder", "archive", *CRAWL], ["app"]])
def test_commands_of_a_user_without_home_end_in_one_line(command: list[str], homeless: None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=HUNG_SECONDS,
    )
    assert done.returncode == 1
    assert "This user has no home folder; set HOME" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
