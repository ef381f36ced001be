"""Reads the CSV files of a dataset, whichever program wrote them."""

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from xray.errors import DatasetError
from xray.mura.files import is_passed_over, listing

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
DELIMITERS = ",;\t"
HEADER_ROWS = 2
"""A header, and the line `sep=;` that Excel may write before it."""


def read_table(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV whose first line names its columns.

    Raises:
        DatasetError: the file is no text or no CSV.
    """
    text = _text(file)
    rows = max((_rows(text, delimiter, file) for delimiter in DELIMITERS), key=lambda rows: len(rows[0]) if rows else 0)
    if not rows:
        return []
    header = [name.strip() for name in rows[0]]
    return [dict(zip(header, row, strict=False)) for row in rows[1:]]


def read_paths(file: Path, columns: int) -> list[list[str]]:
    """The rows of a CSV that begins each with a path; a header is recognised and left out.

    Args:
        columns: how many of each row are wanted.

    Returns:
        At least one row; paths have `/` between their parts.

    Raises:
        DatasetError: the file is no text or no CSV, lists nothing, or a row is too short or has no path.
    """
    text = _text(file)
    candidates = [_rows(text, delimiter, file) for delimiter in DELIMITERS]
    rows = next((rows for rows in candidates if _fits(rows, columns)), candidates[0])
    rows = [[row[0].replace("\\", "/"), *row[1:]] for row in rows]
    first = next((number for number, row in enumerate(rows) if "/" in row[0]), len(rows))
    if first == len(rows) or first > HEADER_ROWS:
        raise DatasetError(f"{file.name} lists no path; each row begins with one, such as MURA-v1.1/train/XR_HAND/….")
    rows = rows[first:]
    if pathless := [row[0] for row in rows if "/" not in row[0]]:
        raise DatasetError(listing(pathless, f"of {file.name} are rows without a path"))
    if short := [row[0] for row in rows if len(row) < columns]:
        raise DatasetError(listing(short, f"of {file.name} have fewer than {columns} columns"))
    return [row[:columns] for row in rows]


def without_prefix(path: str, split: str) -> tuple[str, str]:
    """What stands before a path's `split/XR_…`, and the path from there on, without a `/` at its end.

    `data/MURA-v1.1/train/XR_HAND/x.png` is `data/MURA-v1.1` and `train/XR_HAND/x.png`; a path without them is all
    prefix.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == split and parts[place + 1].startswith("XR_"):
            return "/".join(parts[:place]), "/".join(parts[place:])
    return "/".join(parts), ""


def is_hidden(inner: str) -> bool:
    """Whether any part of a listed path names what a search passes over."""
    return any(is_passed_over(part) for part in inner.split("/"))


def _fits(rows: Sequence[Sequence[str]], columns: int) -> bool:
    return any("/" in row[0] or "\\" in row[0] for row in rows) and all(
        len(row) >= columns for row in rows if "/" in row[0] or "\\" in row[0]
    )


def _rows(text: str, delimiter: str, file: Path) -> list[list[str]]:
    """The rows that are not empty."""
    try:
        rows = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter, skipinitialspace=True)
        return [row for row in rows if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DatasetError(f"{file.name} is no CSV: {error}.") from error


def _text(file: Path) -> str:
    """Decode a file by its byte order mark, by the zeros of UTF-16, as UTF-8, or as Latin-1, which takes any bytes."""
    data = file.read_bytes()
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), None) or _unmarked(data)
    try:
        return data.decode(encoding)
    except UnicodeError as error:
        raise DatasetError(f"{file.name} is no {encoding.upper()} text: {error}.") from error


def _unmarked(data: bytes) -> str:
    """The encoding of text without a byte order mark."""
    zeros = data[0::2].count(0), data[1::2].count(0)
    if any(zeros):
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    try:
        data.decode()
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"
