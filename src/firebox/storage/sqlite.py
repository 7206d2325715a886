"""SQLite: transactions in threads, one writer at a time.

A transaction runs in its thread as a whole: dispatching every statement would cost several times as much.
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.dialects import sqlite

from firebox.storage.database import Work
from firebox.storage.sqlite_file import BUSY_S, prepare

READERS = 3

T = TypeVar("T")

_WRITES = "firebox_writes"


class SqliteTransactions:
    """A caller that times out leaves the transaction to its thread, where it still is atomic. busy_s: overrides `BUSY_S`."""

    insert = staticmethod(sqlite.insert)

    def __init__(self, path: Path, *, busy_s: float | None = None) -> None:
        busy_s = busy_s or BUSY_S

        def prepare_connection(connection: sqlite3.Connection, _record: object) -> None:
            prepare(connection, busy_s)

        self._engine = create_engine(
            URL.create("sqlite+pysqlite", database=str(path)),
            connect_args={"isolation_level": None, "timeout": busy_s},
            hide_parameters=True,
            pool_size=READERS + 1,
            max_overflow=0,
        )
        event.listen(self._engine, "connect", prepare_connection)
        event.listen(self._engine, "begin", _begin)
        self._writer = ThreadPoolExecutor(1, "database-writer")
        self._readers = ThreadPoolExecutor(READERS, "database-reader")

    async def run(self, work: Work[T], *, writes: bool) -> T:
        """Run `work` in one transaction, atomically. Raises: errors of the driver."""
        threads = self._writer if writes else self._readers
        return await asyncio.get_running_loop().run_in_executor(threads, self._transaction, work, writes)

    async def close(self) -> None:
        """Wait for running transactions, and close all connections."""
        await asyncio.to_thread(self._close)

    def _transaction(self, work: Work[T], writes: bool) -> T:
        with self._engine.connect().execution_options(**{_WRITES: writes}) as connection, connection.begin():
            return work(connection)

    def _close(self) -> None:
        for threads in (self._readers, self._writer):
            threads.shutdown(cancel_futures=True)
        self._engine.dispose()


def _begin(connection: Connection) -> None:
    """Take the write lock first: a transaction that has read already may never get it, however long it waits."""
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
