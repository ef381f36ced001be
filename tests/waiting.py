"""How tests wait: for an event, however slow the machine is."""

import time
from collections.abc import Callable

HUNG_SECONDS = 300
"""Only ends a test that hangs; whatever a healthy program does takes a fraction of it, on a busy machine too."""
POLL_SECONDS = 0.05


def wait_until(happened: Callable[[], object], what: str = "it") -> None:
    """Return once `happened()` is true; fail, naming `what`, after `HUNG_SECONDS`."""
    deadline = time.monotonic() + HUNG_SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"{what} did not happen within {HUNG_SECONDS} s"
        time.sleep(POLL_SECONDS)
