"""Finds the user's folders for files of programs, as the operating system defines them."""

from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

from xray.errors import InputError

APPLICATION = "osteon"
"""The name of this program's folders."""


def cache_folder() -> Path:
    """Return the user's folder for files that programs can create again.

    Raises:
        InputError: the user has no home folder.
    """
    return _folder(user_cache_path)


def data_folder() -> Path:
    """Return the user's folder for files of programs that have to be kept.

    Raises:
        InputError: the user has no home folder, as in a container that runs under a numeric user ID.
    """
    return _folder(user_data_path)


def _folder(path_of: Callable[[str], Path]) -> Path:
    try:
        return path_of(APPLICATION)
    except RuntimeError as error:
        raise InputError(
            "This user has no home folder; set HOME, or XDG_DATA_HOME and XDG_CACHE_HOME, to a folder to write to."
        ) from error
