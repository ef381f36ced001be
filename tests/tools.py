"""Skips tests that need programs of other projects."""

import os
import shutil

import pytest


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip a test if a program is not installed, unless `OSTEON_TEST_ALL` is set."""
    missing = [program for program in programs if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    wanted = bool(os.environ.get("OSTEON_TEST_ALL"))
    return pytest.mark.skipif(bool(missing) and not wanted, reason=f"not installed: {', '.join(missing)}")
