"""Connects to the database of jobs, creates or migrates its tables, and opens transactions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    ExceptionContext,
    Insert,
    Table,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pacs.errors import ConfigurationError
from pacs.queue import tables
from pacs.queue.encryption import Cipher
from pacs.queue.errors import JobsUnavailableError, SealError
from pacs.queue.migrations import migrate

ADDRESS_EXAMPLES = "sqlite:////folder/jobs.sqlite or postgresql+pg8000://user@host/database"
TIMEOUT_SECONDS = 20
"""Timeout for a lock and for any response of a database server, in seconds; longer than any transaction here takes."""
CREATION_LOCK = 7_361_902
"""Key of the PostgreSQL advisory lock, an arbitrary number, so that only one replica at a time creates the tables."""
CHECK_WORD, CHECK_PURPOSE = b"osteon", "check of the key"
"""Known word in the table `layout`, which shows whether the key is the right one."""
PRAGMAS = (
    f"busy_timeout = {TIMEOUT_SECONDS * 1000}",
    "journal_mode = WAL",
    "synchronous = FULL",  # committed data survives a power cut
    "foreign_keys = ON",
    "secure_delete = ON",  # deleted bytes are overwritten, although they are encrypted
)
POSTGRESQL_SETTINGS = (
    f"lock_timeout = '{TIMEOUT_SECONDS}s'",
    f"idle_in_transaction_session_timeout = '{TIMEOUT_SECONDS}s'",
)
"""PostgreSQL settings, so that a replica whose machine has failed does not lock a row for longer."""


class Database:
    """The queue's database of jobs: SQLite for one machine or PostgreSQL for several. Thread-safe."""

    def __init__(self, address: str, cipher: Cipher) -> None:
        """Connect, and create or migrate the tables.

        Raises:
            ConfigurationError: the address is not valid, or a newer version of this program wrote the database.
            SealError: the database was encrypted with another key.
            JobsUnavailableError: the database does not respond.
        """
        self._engine = _engine(address)
        self._reader = self._engine.execution_options(reading=True)
        with self.writing() as connection:
            _create_tables(connection, cipher)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction of the database, which is committed when the block ends and rolled back if it raises."""
        with _typed_errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a read transaction of the queue's database, which does not wait for writers."""
        with _typed_errors(), self._reader.begin() as connection:
            yield connection

    def insert_missing(self, table: Table) -> Insert:
        """Return the database's INSERT that does nothing if the row exists, even if another replica is inserting it."""
        insert: Any = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        statement: Insert = insert(table).on_conflict_do_nothing()
        return statement

    def close(self) -> None:
        """Close all connections to the queue's database."""
        self._engine.dispose()


def _engine(address: str) -> Engine:
    try:
        url = make_url(address)
    except ArgumentError:
        raise ConfigurationError(f"The database of jobs needs an address such as {ADDRESS_EXAMPLES}.") from None
    if url.drivername in ("sqlite", "sqlite+pysqlite") and url.database not in (None, "", ":memory:"):
        return _sqlite_engine(url)
    if url.drivername == "postgresql+pg8000":
        return _postgresql_engine(url)
    raise ConfigurationError(f"The database of jobs cannot be {url.drivername}; use {ADDRESS_EXAMPLES}.")


def _sqlite_engine(url: URL) -> Engine:
    file = Path(url.database or "")
    try:
        file.touch(mode=0o600)
    except OSError as error:
        raise ConfigurationError(f"The database of jobs {file} cannot be written: {error.strerror}.") from None
    engine = create_engine(url, hide_parameters=True)

    def on_connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # otherwise the driver begins its own transactions, too late
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    def on_begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("reading")
        # A writer locks at the start, because a reader that becomes a writer fails instead of waiting for the lock.
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _postgresql_engine(url: URL) -> Engine:
    engine = create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args={"timeout": TIMEOUT_SECONDS})

    def on_connect(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        for setting in POSTGRESQL_SETTINGS:
            cursor.execute(f"SET {setting}")
        connection.commit()

    def on_error(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, OSError):
            # The driver passes timeouts on unchanged. Without this, a late response would answer the next query.
            context.is_disconnect = True

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "handle_error", on_error)
    return engine


def _create_tables(connection: Connection, cipher: Cipher) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(CREATION_LOCK)))
    tables.layout.create(connection, checkfirst=True)
    tables.left_alone.create(connection, checkfirst=True)  # older databases with this layout lack this table
    row = connection.execute(select(tables.layout)).one_or_none()
    if row is None:
        tables.metadata.create_all(connection)
        check = cipher.encrypt(CHECK_WORD, CHECK_PURPOSE)
        connection.execute(tables.layout.insert().values(version=tables.VERSION, check=check))
        return
    if row.version > tables.VERSION:
        raise ConfigurationError(
            f"The database of jobs has layout {row.version}, and this program knows {tables.VERSION}: "
            "run the version that wrote it, or use another database."
        )
    try:
        cipher.decrypt(row.check, CHECK_PURPOSE)
    except SealError:
        raise SealError("The database of jobs was encrypted with another key than that of the key file.") from None
    if row.version < tables.VERSION:
        migrate(connection, cipher)


@contextmanager
def _typed_errors() -> Iterator[None]:
    """Raise JobsUnavailableError for database errors, with the type only: their texts repeat rows and addresses."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        kind = type(getattr(error, "orig", None) or error).__name__
        raise JobsUnavailableError(f"The database of jobs cannot be used at the moment ({kind}).") from None
