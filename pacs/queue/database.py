"""Transactions on a database with the tables of jobs, which are made or brought up to date when it is opened."""

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
from pacs.queue.migrations import bring_up

ADDRESSES = "sqlite:////folder/jobs.sqlite or postgresql+pg8000://user@host/database"
WAIT_SECONDS = 20
"""For a lock, and for any answer of a database server."""
CREATION_LOCK = 7_361_902
"""Any number; replicas that start at once create the tables one after the other by it."""
CHECK_WORD, CHECK_PURPOSE = b"osteon", "check of the key"
PRAGMAS = (
    f"busy_timeout = {WAIT_SECONDS * 1000}",
    "journal_mode = WAL",
    "synchronous = FULL",  # what was committed outlives a power cut
    "foreign_keys = ON",
    "secure_delete = ON",  # deleted bytes are overwritten, sealed as they are
)
LIMITS = (f"lock_timeout = '{WAIT_SECONDS}s'", f"idle_in_transaction_session_timeout = '{WAIT_SECONDS}s'")
"""So that a replica whose machine vanished holds no job's row for longer."""


class Database:
    """SQLite for one machine, PostgreSQL for several; safe to use from any thread."""

    def __init__(self, address: str, cipher: Cipher) -> None:
        """Open it, and create the tables where they are missing.

        Raises:
            ConfigurationError: the address is none, or a newer version of this program has written there.
            SealError: what is there was sealed with another key.
            JobsUnavailableError: the database does not answer.
        """
        self._engine = _engine(address)
        self._reader = self._engine.execution_options(reading=True)
        with self.writing() as connection:
            _create_tables(connection, cipher)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: all of the block is durable when it ends, or none of it if it raises."""
        with _typed_errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that waits for no writer."""
        with _typed_errors(), self._reader.begin() as connection:
            yield connection

    def insert_missing(self, table: Table) -> Insert:
        """An INSERT that does nothing where the row is already there, even if another replica is just adding it."""
        insert: Any = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        statement: Insert = insert(table).on_conflict_do_nothing()
        return statement

    def close(self) -> None:
        self._engine.dispose()


def _engine(address: str) -> Engine:
    try:
        url = make_url(address)
    except ArgumentError:
        raise ConfigurationError(f"The database of jobs needs an address such as {ADDRESSES}.") from None
    if url.drivername in ("sqlite", "sqlite+pysqlite") and url.database not in (None, "", ":memory:"):
        return _sqlite_engine(url)
    if url.drivername == "postgresql+pg8000":
        return _postgresql_engine(url)
    raise ConfigurationError(f"The database of jobs cannot be {url.drivername}; give {ADDRESSES}.")


def _sqlite_engine(url: URL) -> Engine:
    file = Path(url.database or "")
    try:
        file.touch(mode=0o600)
    except OSError as error:
        raise ConfigurationError(f"The database of jobs {file} cannot be written: {error.strerror}.") from None
    engine = create_engine(url, hide_parameters=True)

    def on_connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # or the driver begins transactions of its own, and too late
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    def on_begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("reading")
        # Whoever is to write takes the lock first: a reader that turns writer would fail where it could have waited.
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _postgresql_engine(url: URL) -> Engine:
    engine = create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args={"timeout": WAIT_SECONDS})

    def on_connect(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        for limit in LIMITS:
            cursor.execute(f"SET {limit}")
        connection.commit()

    def on_error(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, OSError):
            # The driver lets time-outs through as they are; the late answer must not be taken for the next one's.
            context.is_disconnect = True

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "handle_error", on_error)
    return engine


def _create_tables(connection: Connection, cipher: Cipher) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(CREATION_LOCK)))
    tables.layout.create(connection, checkfirst=True)
    tables.left_alone.create(connection, checkfirst=True)  # which older databases of the same layout lack
    row = connection.execute(select(tables.layout)).one_or_none()
    if row is None:
        tables.metadata.create_all(connection)
        check = cipher.encrypt(CHECK_WORD, CHECK_PURPOSE)
        connection.execute(tables.layout.insert().values(version=tables.VERSION, check=check))
        return
    if row.version > tables.VERSION:
        raise ConfigurationError(
            f"The database of jobs has layout {row.version}, and this program knows {tables.VERSION}: "
            "run the version that wrote it, or give another database."
        )
    try:
        cipher.decrypt(row.check, CHECK_PURPOSE)
    except SealError:
        raise SealError("The database of jobs was sealed with another key than the key file's.") from None
    if row.version < tables.VERSION:
        bring_up(connection, cipher)


@contextmanager
def _typed_errors() -> Iterator[None]:
    """The drivers' messages repeat rows and addresses, so only their type goes further."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        kind = type(getattr(error, "orig", None) or error).__name__
        raise JobsUnavailableError(f"The database of jobs cannot be used at the moment ({kind}).") from None
