"""What goes wrong in a database, in the words of the house: one table from the drivers' errors to ours.

A client is told the kind of trouble only; the driver's own sentence goes to the log, the statement and its values nowhere.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import structlog

from firebox.domain.errors import FireboxError, PartUnavailable
from firebox.storage.log_throttle import Quiet

if TYPE_CHECKING:  # what fails has loaded it
    from sqlalchemy.exc import DBAPIError

DATABASE = "database"
QUIET_S = 10.0
"""A database that is away fails every request: one line in this time is enough."""

UPGRADE_HINT = "bring its schema up to date: firebox db upgrade"

_log = structlog.get_logger("firebox.storage")

# By SQLSTATE or its class. Source: PostgreSQL, "Appendix A. PostgreSQL Error Codes".
_STATES = {
    "28": "it refuses our name or password",
    "3D": "there is no database of that name",
    "3F": "there is no schema of that name",
    "42501": "we may not do that there",
    "42P01": "a table is missing",
    "42703": "a column is missing",
    "42P07": "a table of that name is there already",
    "40": "others got in the way",
    "53100": "its disk is full",
    "53300": "it has no connection left",
    "53": "it is short of something",
    "55P03": "waited too long for a lock",
    "57014": "took too long",
    "57P": "it is stopping or starting",
    "08": "the connection broke",
    "25006": "it can be read only",
    "22": "it refuses a value",
    "23": "it refuses a value",
}

# By the low byte of the extended code. Source: SQLite, "Result and Error Codes".
_CODES = {
    sqlite3.SQLITE_PERM: "we may not do that there",
    sqlite3.SQLITE_AUTH: "we may not do that there",
    sqlite3.SQLITE_BUSY: "others kept it locked for too long",
    sqlite3.SQLITE_LOCKED: "others kept it locked for too long",
    sqlite3.SQLITE_INTERRUPT: "took too long",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_READONLY: "it can be read only",
    sqlite3.SQLITE_IOERR: "its file cannot be read or written",
    sqlite3.SQLITE_CORRUPT: "its file is damaged",
    sqlite3.SQLITE_NOTADB: "its file is not a database",
    sqlite3.SQLITE_FULL: "its disk is full",
    sqlite3.SQLITE_CANTOPEN: "its file cannot be opened",
    sqlite3.SQLITE_TOOBIG: "a value is too large",
    sqlite3.SQLITE_CONSTRAINT: "it refuses a value",
}

_BROKEN_STATES = ("08", "57P01", "57P02", "57P03")

_quiet = Quiet(QUIET_S)


class BrokenConnection(Exception):
    """A connection broke before anything that was done over it could be kept."""

    def __init__(self, error: DBAPIError) -> None:
        super().__init__()
        self.error = error


def translate(error: Exception) -> FireboxError:
    """Turn whatever a driver raised into PartUnavailable, and write it to the log at most once in `QUIET_S` seconds."""
    cause = driver_error(error)
    detail = explain(cause)
    _note(cause, detail)
    return PartUnavailable(DATABASE, detail=detail, hint=UPGRADE_HINT if is_schema_missing(cause) else "")


def driver_error(error: Exception) -> BaseException:
    """Find what the driver itself raised, below what SQLAlchemy made of it."""
    from sqlalchemy.exc import DBAPIError

    found: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        found = error.orig
    # SQLAlchemy puts a class of its own between asyncpg's errors and its own.
    while _state_of(found) == "" and not isinstance(found, sqlite3.Error | OSError) and found.__cause__ is not None:
        found = found.__cause__
    return found


def explain(cause: BaseException) -> str:
    """Say in words what kind of trouble it is: nothing in them comes from the request."""
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    if isinstance(cause, TimeoutError | PoolTimeout):
        return "took too long"
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        # Both are SQLITE_ERROR, as is every mistake in a statement: only the words tell them apart.
        if is_schema_missing(cause):
            return _STATES["42703" if "column" in str(cause) else "42P01"]
        if str(cause).endswith("already exists"):
            return _STATES["42P07"]
        return _CODES.get((code or 0) & 0xFF, "it failed")
    state = _state_of(cause)
    for length in (5, 3, 2):
        if state[:length] in _STATES:
            return _STATES[state[:length]]
    if isinstance(cause, ConnectionError):
        return "the connection is refused or broke"
    return "it cannot be reached" if isinstance(cause, OSError) else "it failed"


def is_broken_connection(cause: BaseException) -> bool:
    """Whether the connection is of no use any more, so that a new one may do."""
    if isinstance(cause, ConnectionError):
        return True
    return _state_of(cause).startswith(_BROKEN_STATES) or type(cause).__name__ == "InterfaceError"


def is_schema_missing(cause: BaseException) -> bool:
    """Whether a table or a column is not there."""
    if isinstance(cause, sqlite3.OperationalError):
        return str(cause).startswith(("no such table", "no such column")) or "has no column named" in str(cause)
    return _state_of(cause) in {"42P01", "42703"}


def is_driver_error(error: Exception) -> bool:
    """Whether a part below us failed, and not our own code."""
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, SQLAlchemyError | sqlite3.Error | OSError) or type(error).__module__.startswith("asyncpg")


def _state_of(error: BaseException) -> str:
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else ""


def _note(cause: BaseException, detail: str) -> None:
    if _quiet.due():
        said = str(cause).partition("\n")[0][:300]
        _log.warning("the database does not answer", detail=detail, error=type(cause).__name__, said=said)
