"""The folders that an operating system gives to a user's programs."""

from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

from xray.errors import InputError

NAME = "osteon"


def cache_folder() -> Path:
    """For what can be made again. Raises InputError as `data_folder` does."""
    return _folder(user_cache_path)


def data_folder() -> Path:
    """For what has to be kept.

    Raises:
        InputError: the user has no home, as in a container that runs under a number of its own.
    """
    return _folder(user_data_path)


def _folder(path_of: Callable[[str], Path]) -> Path:
    try:
        return path_of(NAME)
    except RuntimeError as error:
        raise InputError(
            "This user has no home folder; set HOME, or XDG_DATA_HOME and XDG_CACHE_HOME, to a folder to write to."
        ) from error
