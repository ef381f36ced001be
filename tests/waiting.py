"""Waits for an event in tests, on a machine of any speed."""

import time
from collections.abc import Callable

HUNG_SECONDS = 300
"""Timeout for a test that hangs. A healthy program needs a fraction of it, even on a busy machine."""
POLL_SECONDS = 0.05


def wait_until(happened: Callable[[], object], what: str = "it") -> None:
    """Return as soon as `happened()` is true; fail, naming `what`, after `HUNG_SECONDS`."""
    deadline = time.monotonic() + HUNG_SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"{what} did not happen within {HUNG_SECONDS} s"
        time.sleep(POLL_SECONDS)
