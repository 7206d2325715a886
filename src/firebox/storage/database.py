"""A database, SQLite or PostgreSQL: `read` and `write`, each one transaction with a timeout."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import structlog

from firebox.domain.errors import SettingsError
from firebox.storage.database_address import Address
from firebox.storage.database_errors import BrokenConnection, is_driver_error, translate

if TYPE_CHECKING:  # importing the unused one would cost megabytes
    from sqlalchemy import Connection, Table
    from sqlalchemy.dialects import postgresql, sqlite

    from firebox.storage.postgresql import PostgresqlTransactions
    from firebox.storage.sqlite import SqliteTransactions

PATIENCE_S = 15.0
"""Timeout of a whole use case."""

T = TypeVar("T")
Work = Callable[["Connection"], T]
"""Work done in one transaction. It runs where it may block, so it must not touch the event loop."""

_log = structlog.get_logger("firebox.storage")


class Database:
    """A pool of connections, used as `async with Database(address) as database`. The first read or write loads SQLAlchemy.

    single: for migrations: do not pool connections. patience_s: timeout of each use case.
    """

    def __init__(self, address: Address, *, single: bool = False, patience_s: float = PATIENCE_S) -> None:
        self.address = address
        self._single = single
        self._patience_s = patience_s

    async def __aenter__(self) -> Self:
        if self.address.path is not None:
            await asyncio.to_thread(make_private_file, self.address.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        if "_transactions" in self.__dict__:
            await self._transactions.close()

    @cached_property
    def _transactions(self) -> SqliteTransactions | PostgresqlTransactions:
        """The implementation that the address needs. A migration waits, and lets a statement take, as long as it may itself."""
        patience_s = self._patience_s if self._single else None
        if self.address.path is not None:
            from firebox.storage.sqlite import SqliteTransactions

            return SqliteTransactions(self.address.path, busy_s=patience_s)
        from firebox.storage.postgresql import PostgresqlTransactions

        return PostgresqlTransactions(self.address, single=self._single, statement_s=patience_s)

    async def read(self, work: Work[T]) -> T:
        """Run `work` in a read-only transaction. Raises: PartUnavailable and whatever `work` raises."""
        return await self._run(work, writes=False)

    async def write(self, work: Work[T]) -> T:
        """Run `work` in one transaction, atomically.

        work: called again when the connection broke before anything could be committed.
        Raises: PartUnavailable, IntegrityError for a duplicate of a unique value, and whatever `work` raises.
        """
        return await self._run(work, writes=True)

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Create an INSERT that supports ON CONFLICT: both databases have the same syntax."""
        return self._transactions.insert(table)

    async def _run(self, work: Work[T], *, writes: bool) -> T:
        try:
            async with asyncio.timeout(self._patience_s):
                try:
                    return await self._transactions.run(work, writes=writes)
                except BrokenConnection:
                    # The server was restarted: the pool has discarded its connections.
                    return await self._transactions.run(work, writes=writes)
        except BrokenConnection as broken:
            raise translate(broken.error) from None
        except Exception as error:
            if not is_driver_error(error):
                raise
            raise translate(error) from None


def make_private_file(path: Path) -> None:
    """Create an empty file that only this user can read, and its folders, unless they exist.

    SQLite gives its write-ahead log the mode of this file. Raises: SettingsError when the file cannot be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Do not open an existing file: closing it again would drop the locks of all connections of this process,
        # and another process that closes the database would then delete the log they still write to.
        # Source: SQLite, "How To Corrupt An SQLite Database File", 2.2.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SettingsError("database_url", value=str(path), allowed="a writable file", hint=f"{error.strerror}") from None
    if mode & 0o077:
        _log.warning("the database is readable by others", path=str(path), hint=f"chmod 600 {path}")
