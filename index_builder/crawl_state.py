"""What is known of an archive's radiographs, in one SQLite file under pseudonyms; what was committed outlives a kill.

Legend: D embedding.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from xray.errors import ArtifactError, InputError
from xray.gallery.vector_index import EmbeddingArray
from xray.images.preprocess import PREPROCESS_VERSION

TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS origin (checkpoint TEXT, archive TEXT, key TEXT);
CREATE TABLE IF NOT EXISTS seen (
    instance TEXT PRIMARY KEY, study TEXT NOT NULL, body_part TEXT, embedding BLOB, left_out TEXT
);
CREATE INDEX IF NOT EXISTS seen_by_study ON seen (study);
CREATE TABLE IF NOT EXISTS withdrawn (name TEXT PRIMARY KEY);
COMMIT;
"""
SETTINGS = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA secure_delete = ON;"
"""One crawler at a time, and what is deleted is overwritten."""


@dataclass(frozen=True)
class Origin:
    """What may not change from one crawl to the next; `key` is what the key makes of nothing."""

    checkpoint: str
    archive: str
    key: str


@dataclass(frozen=True)
class Held:
    """A radiograph of the gallery.

    Attributes:
        instance, study: pseudonyms.
        body_part: `XR_*`; None where the tags name none that we know.
        embedding_D: float32.
    """

    instance: str
    study: str
    body_part: str | None
    embedding_D: EmbeddingArray


@dataclass(frozen=True)
class LeftOut:
    """A radiograph that is not for the gallery; `reason` is a word."""

    instance: str
    study: str
    reason: str


class Holdings:
    """The file, open; every method's change is committed when it returns."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def names(self) -> set[str]:
        """Of all radiographs that were read, and of studies and radiographs that are withdrawn."""
        rows = self._connection.execute("SELECT instance FROM seen UNION SELECT name FROM withdrawn")
        return {name for (name,) in rows}

    def put(self, seen: Sequence[Held | LeftOut]) -> None:
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", map(_row, seen))

    def keep_only(self, study: str, instances: Collection[str]) -> int:
        """Forget those of a study that the archive has no longer; how many these were."""
        rows = self._connection.execute("SELECT instance FROM seen WHERE study = ?", (study,))
        gone = [(name,) for (name,) in rows if name not in instances]
        with self._connection:
            self._connection.executemany("DELETE FROM seen WHERE instance = ?", gone)
        return len(gone)

    def withdraw(self, name: str) -> int:
        """Forget a study or radiograph for good: no crawl takes it in again. How many radiographs these were."""
        with self._connection:
            self._connection.execute("INSERT OR IGNORE INTO withdrawn VALUES (?)", (name,))
            return self._connection.execute("DELETE FROM seen WHERE study = ? OR instance = ?", (name, name)).rowcount

    def held(self) -> Iterator[Held]:
        """By study and name."""
        rows = self._connection.execute(
            "SELECT instance, study, body_part, embedding FROM seen WHERE embedding NOT NULL ORDER BY study, instance"
        )
        for instance, study, body_part, embedding in rows:
            yield Held(instance, study, body_part, np.frombuffer(embedding, np.float32))

    def left_out(self) -> dict[str, int]:
        """How many radiographs were left out for each reason."""
        rows = self._connection.execute(
            "SELECT left_out, count(*) FROM seen WHERE left_out NOT NULL GROUP BY left_out ORDER BY left_out"
        )
        return dict(rows.fetchall())


@contextmanager
def opened(file: Path, origin: Origin) -> Iterator[Holdings]:
    """The holdings in `file`, which is made when missing.

    Raises:
        InputError: they are of another checkpoint, archive or key, or another crawl is at them.
        ArtifactError: the file is damaged.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(file, timeout=1)) as connection:
            connection.executescript(SETTINGS + TABLES)
            _require_origin(connection, file, origin)
            yield Holdings(connection)
    except sqlite3.OperationalError as error:
        raise InputError(f"{file} cannot be used ({error}); is another crawl at it?") from error
    except sqlite3.DatabaseError as error:
        raise ArtifactError(f"{file} is damaged ({error}); remove it, and crawl the archive again.") from error


def _require_origin(connection: sqlite3.Connection, file: Path, origin: Origin) -> None:
    stored = connection.execute("SELECT checkpoint, archive, key FROM origin").fetchone()
    if stored is None:
        with connection:
            connection.execute("INSERT INTO origin VALUES (?, ?, ?)", astuple(origin))
    elif Origin(*stored) != origin:
        raise InputError(
            f"{file} holds another checkpoint's embeddings, another archive's radiographs or another key's names; "
            "give another --out, or remove it."
        )
    _forget_other_canvases(connection)


def _forget_other_canvases(connection: sqlite3.Connection) -> None:
    """Read every radiograph again where another version of the program embedded them; what is withdrawn stays so."""
    if connection.execute("PRAGMA user_version").fetchone() != (PREPROCESS_VERSION,):
        with connection:
            connection.execute("DELETE FROM seen")
            connection.execute(f"PRAGMA user_version = {PREPROCESS_VERSION}")


def _row(seen: Held | LeftOut) -> tuple[str, str, str | None, bytes | None, str | None]:
    if isinstance(seen, LeftOut):
        return seen.instance, seen.study, None, None, seen.reason
    return seen.instance, seen.study, seen.body_part, np.asarray(seen.embedding_D, np.float32).tobytes(), None
