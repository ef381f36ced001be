"""Stores in one SQLite file which radiographs of an archive were read, with pseudonyms and embeddings.

Committed changes survive if the process is killed.

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
"""SQL that creates the tables. `left_out` is the reason to skip a radiograph; `withdrawn` has the forgotten UIDs."""
SETTINGS = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA secure_delete = ON;"
"""SQL settings: only one crawler at a time may use the file, and the bytes of deleted rows are overwritten."""


@dataclass(frozen=True)
class Origin:
    """Values that must be the same in every crawl that uses the file of the state.

    Attributes:
        key: pseudonym of the empty string, which identifies the key.
    """

    checkpoint: str
    archive: str
    key: str


@dataclass(frozen=True)
class IndexedInstance:
    """A radiograph in a crawl's state that belongs in the gallery.

    Attributes:
        instance, study: pseudonyms.
        body_part: `XR_*`; None if the tags name no known body part.
        embedding_D: float32.
    """

    instance: str
    study: str
    body_part: str | None
    embedding_D: EmbeddingArray


@dataclass(frozen=True)
class SkippedInstance:
    """A radiograph in a crawl's state that does not belong in the gallery.

    Attributes:
        instance, study: pseudonyms.
        reason: one word.
    """

    instance: str
    study: str
    reason: str


class CrawlState:
    """The open state of a crawl. Every method commits its change before it returns."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def known_pseudonyms(self) -> set[str]:
        """Return the pseudonyms in the crawl's state: of radiographs that were read, and of forgotten UIDs."""
        rows = self._connection.execute("SELECT instance FROM seen UNION SELECT name FROM withdrawn")
        return {name for (name,) in rows}

    def put(self, instances: Sequence[IndexedInstance | SkippedInstance]) -> None:
        """Add radiographs to the crawl's state or replace them."""
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", map(_row, instances))

    def keep_only(self, study: str, instances: Collection[str]) -> int:
        """Delete from the crawl's state what the archive no longer has of a study; return the number of radiographs."""
        rows = self._connection.execute("SELECT instance FROM seen WHERE study = ?", (study,))
        gone = [(name,) for (name,) in rows if name not in instances]
        with self._connection:
            self._connection.executemany("DELETE FROM seen WHERE instance = ?", gone)
        return len(gone)

    def forget(self, pseudonym: str) -> int:
        """Delete a study or radiograph so that no crawl indexes it again; return the number of deleted radiographs."""
        with self._connection:
            self._connection.execute("INSERT OR IGNORE INTO withdrawn VALUES (?)", (pseudonym,))
            deleted = self._connection.execute(
                "DELETE FROM seen WHERE study = ? OR instance = ?", (pseudonym, pseudonym)
            )
            return deleted.rowcount

    def indexed(self) -> Iterator[IndexedInstance]:
        """Yield the radiographs in the crawl's state that belong in the gallery, sorted by study and instance."""
        rows = self._connection.execute(
            "SELECT instance, study, body_part, embedding FROM seen WHERE embedding NOT NULL ORDER BY study, instance"
        )
        for instance, study, body_part, embedding in rows:
            yield IndexedInstance(instance, study, body_part, np.frombuffer(embedding, np.float32))

    def count_skipped(self) -> dict[str, int]:
        """Return the number of skipped radiographs in the crawl's state, by reason."""
        rows = self._connection.execute(
            "SELECT left_out, count(*) FROM seen WHERE left_out NOT NULL GROUP BY left_out ORDER BY left_out"
        )
        return dict(rows.fetchall())


@contextmanager
def open_crawl_state(file: Path, origin: Origin) -> Iterator[CrawlState]:
    """Open the crawl's state in `file`, which is created if it is missing.

    Raises:
        InputError: the file is of another checkpoint, archive or key, or another crawl uses it.
        ArtifactError: the file is damaged.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(file, timeout=1)) as connection:
            connection.executescript(SETTINGS + TABLES)
            _require_origin(connection, file, origin)
            yield CrawlState(connection)
    except sqlite3.OperationalError as error:
        raise InputError(f"{file} cannot be used ({error}); wait until no other crawl uses it.") from error
    except sqlite3.DatabaseError as error:
        raise ArtifactError(f"{file} is damaged ({error}); remove it, and crawl the archive again.") from error


def _require_origin(connection: sqlite3.Connection, file: Path, origin: Origin) -> None:
    stored = connection.execute("SELECT checkpoint, archive, key FROM origin").fetchone()
    if stored is None:
        with connection:
            connection.execute("INSERT INTO origin VALUES (?, ?, ?)", astuple(origin))
    elif Origin(*stored) != origin:
        raise InputError(
            f"{file} has another checkpoint's embeddings, another archive's radiographs or another key's pseudonyms; "
            "give another --out, or remove it."
        )
    _delete_outdated(connection)


def _delete_outdated(connection: sqlite3.Connection) -> None:
    """Delete embeddings from another version of the preprocessing, so that they are computed again.

    Forgotten studies and radiographs stay forgotten.
    """
    if connection.execute("PRAGMA user_version").fetchone() != (PREPROCESS_VERSION,):
        with connection:
            connection.execute("DELETE FROM seen")
            connection.execute(f"PRAGMA user_version = {PREPROCESS_VERSION}")


def _row(instance: IndexedInstance | SkippedInstance) -> tuple[str, str, str | None, bytes | None, str | None]:
    if isinstance(instance, SkippedInstance):
        return instance.instance, instance.study, None, None, instance.reason
    embedding = np.asarray(instance.embedding_D, np.float32).tobytes()
    return instance.instance, instance.study, instance.body_part, embedding, None
