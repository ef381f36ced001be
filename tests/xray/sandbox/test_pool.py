"""An error that a child process reports reaches the caller as itself, and only the listed errors may do so."""

import asyncio
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.xray.sandbox.reporting_worker import REPORT
from xray import errors
from xray.errors import InputError
from xray.sandbox.pool import INPUT_ERRORS, ProcessPool, UnknownReplyError

CPU_LIMIT_SECONDS = 60.0


async def report(name: str) -> bytes:
    """The reply to the request that follows a reported error."""
    pool = ProcessPool("tests.xray.sandbox.reporting_worker", [], size=1)
    try:
        await pool.request(REPORT, name.encode(), CPU_LIMIT_SECONDS)
    finally:
        _, data = await pool.request(b"?", b"next", CPU_LIMIT_SECONDS)
        await pool.close()
    return data


def test_every_input_error_may_be_reported() -> None:
    assert set(INPUT_ERRORS.values()) == {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, InputError)
    }


def test_reported_error_reaches_the_caller_as_itself() -> None:
    with pytest.raises(errors.NoContentError, match=r"^The file is damaged\.$"):
        asyncio.run(report("NoContentError"))


@pytest.mark.parametrize("name", ["NoSuchError", "XrayError", "__name__"])
def test_unknown_error_is_one_internal_error(name: str) -> None:
    with pytest.raises(UnknownReplyError, match="unknown type"):
        asyncio.run(report(name))


def test_decoders_are_imported_before_the_first_file_is_timed() -> None:
    program = (
        "import sys; from xray.images.decoding.decoder_worker import import_decoders; import_decoders(); "
        "sys.exit(not {'imagecodecs', 'PIL', 'pydicom'} <= {*sys.modules})"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
