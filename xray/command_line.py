"""Ends a command-line program with one line on stderr if the user can fix the error."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from xray.errors import XrayError


@contextmanager
def exit_with_message() -> Iterator[None]:
    """End a command-line program with status 1 and one line on stderr if the block raises an XrayError or OSError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the terminal may not be able to show a file's name
    try:
        yield
    except (XrayError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
