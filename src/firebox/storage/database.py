"""One database, SQLite or PostgreSQL, behind one door: `read` and `write`, each one transaction, bounded in time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeVar

import structlog

from firebox.domain.errors import FireboxError, SettingsError
from firebox.storage.database_address import Address
from firebox.storage.database_errors import BrokenConnection, is_driver_error, translate
from firebox.storage.transactions import Transactions, Work

if TYPE_CHECKING:
    from sqlalchemy import Table

    # The one that is not used costs a server megabytes.
    from sqlalchemy.dialects import postgresql, sqlite

PATIENCE_S = 15.0
"""How long a whole use case may take, whatever happens."""

T = TypeVar("T")

_log = structlog.get_logger("firebox.storage")


class Database:
    """A pool of connections. Use it as `async with Database(address) as database`.

    What statements are made with is loaded once there is something to read or write.

    single: for schema moves: connections are not kept. patience_s: how long each use case may take.
    """

    def __init__(self, address: Address, *, single: bool = False, patience_s: float = PATIENCE_S) -> None:
        self.address = address
        self.kind: Literal["sqlite", "postgresql"] = address.kind
        self._single = single
        self._patience_s = patience_s
        self._opened: Transactions | None = None

    async def __aenter__(self) -> Self:
        if self.address.path is not None:
            await asyncio.to_thread(make_private_file, self.address.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._opened is not None:
            await self._opened.close()

    @property
    def is_in_use(self) -> bool:
        """Whether anything was read or written so far."""
        return self._opened is not None

    @property
    def _transactions(self) -> Transactions:
        if self._opened is None:
            self._opened = _transactions(self.address, single=self._single, patience_s=self._patience_s)
        return self._opened

    async def read(self, work: Work[T]) -> T:
        """Do `work` in one transaction that only reads. Raises: PartUnavailable and what `work` raises."""
        return await self._run(work, writes=False)

    async def write(self, work: Work[T]) -> T:
        """Do `work` in one transaction: all of it is kept, or nothing.

        work: may be called a second time when the connection broke before anything could be kept.
        Raises: PartUnavailable, IntegrityError for a value that may be there once and is there already, and what `work` raises.
        """
        return await self._run(work, writes=True)

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Begin an INSERT that may say ON CONFLICT: both databases know it, in the same words."""
        return self._transactions.insert(table)

    async def ping(self) -> None:
        """Ask for nothing. Raises: PartUnavailable."""
        from sqlalchemy import text

        await self.read(lambda connection: connection.execute(text("SELECT 1")).scalar())

    async def _run(self, work: Work[T], *, writes: bool) -> T:
        from sqlalchemy.exc import IntegrityError

        try:
            async with asyncio.timeout(self._patience_s):
                try:
                    return await self._transactions.run(work, writes=writes)
                except BrokenConnection:
                    # The server was restarted since we last spoke to it: the pool has thrown all its connections away.
                    return await self._transactions.run(work, writes=writes)
        except (FireboxError, IntegrityError):
            raise
        except BrokenConnection as broken:
            raise translate(broken.error) from None
        except Exception as error:
            if not is_driver_error(error):
                raise
            raise translate(error) from None


def _transactions(address: Address, *, single: bool, patience_s: float) -> Transactions:
    """Load the one that the address needs, and not the other."""
    if address.path is not None:
        from firebox.storage.sqlite import SqliteTransactions

        return SqliteTransactions(address.path, busy_s=patience_s if single else None)
    from firebox.storage.postgresql import PostgresqlTransactions

    return PostgresqlTransactions(address, single=single, statement_s=patience_s if single else None)


def make_private_file(path: Path) -> None:
    """Make an empty file that only we can read, and the folders above it, unless they are there.

    SQLite gives its write-ahead log the mode of the file. Raises: SettingsError when it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file that is there is not opened: closing it again would take the locks of all connections of this process away,
        # and whoever closes the database in another process then removes the log that they still write to.
        # Source: SQLite, "How To Corrupt An SQLite Database File", 2.2.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is there, and no file")
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SettingsError("database_url", str(path), "a file that can be made and written", hint=f"{error.strerror}") from None
    if mode & 0o077:
        _log.warning("others can read the database", path=str(path), hint=f"chmod 600 {path}")
