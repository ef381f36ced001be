"""Programs of other projects that some tests hold ours against."""

import os
import shutil

import pytest


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where one is not installed, but not where `OSTEON_TEST_ALL` says that nothing may be skipped."""
    missing = [program for program in programs if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    wanted = bool(os.environ.get("OSTEON_TEST_ALL"))
    return pytest.mark.skipif(bool(missing) and not wanted, reason=f"not installed: {', '.join(missing)}")
