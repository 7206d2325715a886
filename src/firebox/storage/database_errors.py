"""Translation of database errors: one table from the drivers' errors to ours.

Clients see the kind of failure only. The driver's message is logged; the statement and its values never are.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import structlog

from firebox.domain.errors import FireboxError, PartUnavailable
from firebox.storage.log_throttle import LogThrottle

if TYPE_CHECKING:  # a failing database has loaded it
    from sqlalchemy.exc import DBAPIError

LOG_EVERY_S = 10.0
"""An unavailable database fails every request: log it once in this time."""

_log = structlog.get_logger("firebox.storage")

# By SQLSTATE or its class. Source: PostgreSQL, "Appendix A. PostgreSQL Error Codes".
_STATES = {
    "28": "authentication failed",
    "3D": "database does not exist",
    "3F": "schema does not exist",
    "42501": "permission denied",
    "42P01": "table missing",
    "42703": "column missing",
    "42P07": "table already exists",
    "40": "serialization conflict",
    "53100": "disk full",
    "53300": "too many connections",
    "53": "out of resources",
    "55P03": "lock timeout",
    "57014": "statement timeout",
    "57P": "shutting down or starting up",
    "08": "connection broken",
    "25006": "read-only database",
    "22": "value rejected",
    "23": "value rejected",
}

# By the low byte of the extended code. Source: SQLite, "Result and Error Codes".
_CODES = {
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_AUTH: "permission denied",
    sqlite3.SQLITE_BUSY: "lock timeout",
    sqlite3.SQLITE_LOCKED: "lock timeout",
    sqlite3.SQLITE_INTERRUPT: "statement timeout",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_READONLY: "read-only database",
    sqlite3.SQLITE_IOERR: "cannot read or write the file",
    sqlite3.SQLITE_CORRUPT: "corrupt file",
    sqlite3.SQLITE_NOTADB: "not a database file",
    sqlite3.SQLITE_FULL: "disk full",
    sqlite3.SQLITE_CANTOPEN: "cannot open the file",
    sqlite3.SQLITE_TOOBIG: "value too large",
    sqlite3.SQLITE_CONSTRAINT: "value rejected",
}

# SQLITE_ERROR covers these and every mistake in a statement: only the message tells them apart.
_MESSAGES = {"no such table": "42P01", "no such column": "42703", "has no column named": "42703", "already exists": "42P07"}

_BROKEN_STATES = ("08", "57P01", "57P02", "57P03")

_throttle = LogThrottle(LOG_EVERY_S)


class BrokenConnection(Exception):
    """A connection broke before anything done over it could be committed."""

    def __init__(self, error: DBAPIError) -> None:
        super().__init__()
        self.error = error


def translate(error: Exception) -> FireboxError:
    """Convert a driver's error to PartUnavailable, and log it at most once in `LOG_EVERY_S` seconds."""
    cause = driver_error(error)
    detail = explain(cause)
    if _throttle.due():
        said = str(cause).partition("\n")[0][:300]
        _log.warning("database unavailable", detail=detail, error=type(cause).__name__, said=said)
    hint = "upgrade its schema: firebox db upgrade" if is_schema_missing(cause) else ""
    return PartUnavailable("database", detail=detail, hint=hint)


def driver_error(error: Exception) -> BaseException:
    """Return the driver's own error below SQLAlchemy's."""
    from sqlalchemy.exc import DBAPIError

    found: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        found = error.orig
    # SQLAlchemy wraps asyncpg's errors in a class of its own.
    while _state_of(found) == "" and not isinstance(found, sqlite3.Error | OSError) and found.__cause__ is not None:
        found = found.__cause__
    return found


def explain(cause: BaseException) -> str:
    """Describe the kind of failure. Contains nothing from the request."""
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    if isinstance(cause, TimeoutError | PoolTimeout):
        return "timeout"
    state = _state_of(cause)
    for known in (state, state[:3], state[:2]):
        if known in _STATES:
            return _STATES[known]
    if isinstance(cause, sqlite3.Error):
        return _CODES.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF, "failure")
    if isinstance(cause, ConnectionError):
        return "connection refused or broken"
    return "cannot connect" if isinstance(cause, OSError) else "failure"


def is_broken_connection(cause: BaseException) -> bool:
    """Return whether the connection is unusable, so that a new one may work."""
    known = isinstance(cause, ConnectionError) or type(cause).__name__ == "InterfaceError"
    return known or _state_of(cause).startswith(_BROKEN_STATES)


def is_schema_missing(cause: BaseException) -> bool:
    """Return whether a table or a column is missing."""
    return _state_of(cause) in {"42P01", "42703"}


def is_driver_error(error: Exception) -> bool:
    """Return whether the database failed, and not our own code. A duplicate of a unique value is no failure."""
    from sqlalchemy.exc import IntegrityError, SQLAlchemyError

    if isinstance(error, IntegrityError):
        return False
    return isinstance(error, SQLAlchemyError | sqlite3.Error | OSError) or type(error).__module__.startswith("asyncpg")


def _state_of(error: BaseException) -> str:
    """Return the SQLSTATE, or ""."""
    if isinstance(error, sqlite3.OperationalError):
        return next((state for words, state in _MESSAGES.items() if words in str(error)), "")
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else ""
