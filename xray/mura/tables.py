"""Reads the CSV files of a dataset in the encodings and dialects of common programs."""

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from xray.errors import DatasetError
from xray.mura.files import is_system_name, listing

ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is its beginning
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The encoding for each byte order mark."""
DELIMITERS = ",;\t"
"""The column delimiters to try."""
MAX_HEADER_ROWS = 2
"""Maximum number of rows before the data: a header, and the line `sep=;` that Excel may write before it."""


def read_table(file: Path) -> list[dict[str, str]]:
    """Read a dataset's CSV whose first line names its columns; each row is a dictionary by column name.

    Raises:
        DatasetError: the file is not text or not CSV.
    """
    text = _read_text(file)
    rows = max((_rows(text, delimiter, file) for delimiter in DELIMITERS), key=lambda rows: len(rows[0]) if rows else 0)
    if not rows:
        return []
    header = [name.strip() for name in rows[0]]
    return [dict(zip(header, row, strict=False)) for row in rows[1:]]


def read_paths(file: Path, columns: int) -> list[list[str]]:
    """Read a dataset's CSV whose rows begin with a path; a header is detected and dropped.

    Args:
        columns: number of columns to return; the others are dropped.

    Returns:
        At least one row; the parts of a path are separated by `/`.

    Raises:
        DatasetError: the file is not text or not CSV, lists no path, or a row is too short or has no path.
    """
    text = _read_text(file)
    candidates = [_rows(text, delimiter, file) for delimiter in DELIMITERS]
    rows = next((rows for rows in candidates if _fits(rows, columns)), candidates[0])
    rows = [[row[0].replace("\\", "/"), *row[1:]] for row in rows]
    first = next((number for number, row in enumerate(rows) if "/" in row[0]), len(rows))
    if first == len(rows) or first > MAX_HEADER_ROWS:
        raise DatasetError(f"{file.name} lists no path; each row begins with one, such as MURA-v1.1/train/XR_HAND/….")
    rows = rows[first:]
    if pathless := [row[0] for row in rows if "/" not in row[0]]:
        raise DatasetError(listing(pathless, f"of {file.name} are rows without a path"))
    if short := [row[0] for row in rows if len(row) < columns]:
        raise DatasetError(listing(short, f"of {file.name} have fewer than {columns} columns"))
    return [row[:columns] for row in rows]


def split_prefix(path: str, split: str) -> tuple[str, str]:
    """Split a path in a dataset's CSV into the part before `split/XR_…` and the rest, without a `/` at the end.

    `data/MURA-v1.1/train/XR_HAND/x.png` becomes `data/MURA-v1.1` and `train/XR_HAND/x.png`. If the path does not
    contain `split/XR_…`, the rest is empty.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == split and parts[index + 1].startswith("XR_"):
            return "/".join(parts[:index]), "/".join(parts[index:])
    return "/".join(parts), ""


def has_system_name(subpath: str) -> bool:
    """Return whether a path in a dataset's CSV has a part that the search for images ignores."""
    return any(is_system_name(part) for part in subpath.split("/"))


def _fits(rows: Sequence[Sequence[str]], columns: int) -> bool:
    """Return whether rows have paths and enough columns, which means that the delimiter is right."""
    return any("/" in row[0] or "\\" in row[0] for row in rows) and all(
        len(row) >= columns for row in rows if "/" in row[0] or "\\" in row[0]
    )


def _rows(text: str, delimiter: str, file: Path) -> list[list[str]]:
    """Parse the rows that are not empty."""
    try:
        rows = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter, skipinitialspace=True)
        return [row for row in rows if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DatasetError(f"{file.name} is not CSV: {error}.") from error


def _read_text(file: Path) -> str:
    """Decode a file by its byte order mark or, without one, with `_guess_encoding`."""
    data = file.read_bytes()
    encoding = next((name for mark, name in ENCODINGS.items() if data.startswith(mark)), None) or _guess_encoding(data)
    try:
        return data.decode(encoding)
    except UnicodeError as error:
        raise DatasetError(f"{file.name} is not {encoding.upper()} text: {error}.") from error


def _guess_encoding(data: bytes) -> str:
    """Guess the encoding of text without a byte order mark: UTF-16 if it has zeros, otherwise UTF-8 or else Latin-1."""
    zeros = data[0::2].count(0), data[1::2].count(0)
    if any(zeros):
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    try:
        data.decode()
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"
