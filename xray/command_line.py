"""How the commands of the programs end when something is wrong with what they were given."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from xray.errors import XrayError


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """Leave the process with status 1 and one line on stderr for an error that the user can mend."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be nothing that the terminal can show
    try:
        yield
    except (XrayError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
