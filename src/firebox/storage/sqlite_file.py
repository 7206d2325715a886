"""SQLite without SQLAlchemy: a connection, and the questions asked at startup.

SQLAlchemy takes a tenth of a second to load, and 13 MB; a server without users and limits does not need it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from firebox.storage.schema import HEAD, VERSION_TABLE

BUSY_S = 5.0
"""How long SQLite waits for a writer in another process."""
TABLES = Path(__file__).with_name("sqlite_tables.sql")
"""The latest schema as SQL. A test checks that it matches `tables`."""
WITH_AGE = ("firebox_users", "shared_codes", "firebox_usage", "firebox_leases")
"""The tables from which `retention` deletes rows."""

_BUSY_PAUSE_S = 0.01
_PRIMARY_CODE = 0xFF
"""The bits of an error code that hold the primary code. Source: SQLite, "Result and Error Codes"."""


def has_newest_schema(path: Path, *, make: bool) -> bool:
    """Return whether a database has the tables of this version. make: create them in an empty database.

    Return False in every unusual case: `schema.prepare_schema` then finds and reports the reason.
    """
    try:
        with _open(path) as connection:
            if make and _version(connection) != HEAD:
                _make_tables(connection)
            return _version(connection) == HEAD
    except sqlite3.Error:
        return False


def has_rows(path: Path) -> bool:
    """Return whether there are rows that may expire; True also when that is unknown."""
    questions = " UNION ALL ".join(f"SELECT EXISTS (SELECT 1 FROM {table})" for table in WITH_AGE)  # noqa: S608 - our own names
    try:
        with _open(path) as connection:
            return any(found for (found,) in connection.execute(questions))
    except sqlite3.Error:
        return True


def prepare(connection: sqlite3.Connection, busy_s: float) -> None:
    """Source: SQLite, "PRAGMA Statements" and "Write-Ahead Logging" (NORMAL is safe against damage with a write-ahead log)."""
    _use_write_ahead_log(connection, busy_s)
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON", "trusted_schema=OFF"):
        connection.execute(f"PRAGMA {pragma}")


@contextmanager
def _open(path: Path) -> Generator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)) as connection:
        prepare(connection, BUSY_S)
        yield connection


def _use_write_ahead_log(connection: sqlite3.Connection, busy_s: float) -> None:
    """Switch a new database to write-ahead logging. The busy timeout does not apply: of two at once, one fails immediately."""
    deadline_s = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise
            time.sleep(_BUSY_PAUSE_S)


def _version(connection: sqlite3.Connection) -> str:
    """Return the version of the schema, or ""."""
    question = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    if connection.execute(question, (VERSION_TABLE,)).fetchone() is None:
        return ""
    row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608 - our own name
    return str(row[0]) if row is not None else ""


def _make_tables(connection: sqlite3.Connection) -> None:
    """Create the latest schema atomically. Raises: sqlite3.Error if a table exists, which migrations must handle."""
    connection.execute("BEGIN IMMEDIATE")  # closing the connection rolls back
    if _version(connection) == HEAD:
        return  # another server was faster
    for statement in TABLES.read_text(encoding="utf-8").strip().split(";\n"):
        connection.execute(statement)
    connection.execute(f"INSERT INTO {VERSION_TABLE} VALUES (?)", (HEAD,))  # noqa: S608 - our own name
    connection.execute("COMMIT")
