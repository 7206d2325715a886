"""PostgreSQL: a pool of asyncpg connections."""

from __future__ import annotations

from typing import Any, TypeVar

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from firebox.domain.errors import SettingsError
from firebox.storage.database import Work
from firebox.storage.database_address import ALLOWED, Address
from firebox.storage.database_errors import BrokenConnection, driver_error, is_broken_connection

CONNECT_S = 5.0
"""Timeout for opening a connection, and for waiting for a free one."""
STATEMENT_S = 10.0
"""Timeout of one statement."""
CONNECTIONS = 10

T = TypeVar("T")

# It has no types.
_driver: Any = asyncpg


class PostgresqlTransactions:
    """single: do not pool connections; statement_s: overrides `STATEMENT_S`."""

    insert = staticmethod(postgresql.insert)

    def __init__(self, address: Address, *, single: bool, statement_s: float | None) -> None:
        self._address = address
        self._statement_s = statement_s or STATEMENT_S
        pool: dict[str, Any] = {"pool_size": CONNECTIONS, "max_overflow": 0, "pool_timeout": CONNECT_S}
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            hide_parameters=True,
            **({"poolclass": NullPool} if single else pool),
        )
        event.listen(self._engine.sync_engine, "handle_error", _recognise_broken)

    async def run(self, work: Work[T], *, writes: bool) -> T:
        """Run `work` in one transaction, atomically.

        Raises: BrokenConnection when nothing can have been committed and a new connection may work; errors of the driver.
        """
        del writes
        async with self._engine.connect() as connection:
            return await connection.run_sync(_transaction, work)

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()

    async def _connect(self) -> Any:
        """Connect as libpq does, with every part of the address (sslmode, several hosts, sockets) and PGPASSFILE."""
        try:
            return await _driver.connect(
                self._address.url,
                timeout=CONNECT_S,
                command_timeout=self._statement_s,
                server_settings={"application_name": "firebox"},
            )
        except (_driver.exceptions.ClientConfigurationError, ValueError) as error:
            # The driver's message may contain the password.
            raise SettingsError(
                "database_url", value=self._address.shown, allowed=ALLOWED, hint=f"rejected by the driver: {type(error).__name__}"
            ) from None


def _transaction(connection: Connection, work: Work[T]) -> T:
    """Raises: BrokenConnection, except for a failed commit, which may have taken effect."""
    with connection.begin():
        try:
            return work(connection)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise BrokenConnection(error) from None
            raise


def _recognise_broken(context: Any) -> None:
    """Detect a shutdown of the server, which is reported before the connection is closed."""
    if context.original_exception is not None and is_broken_connection(driver_error(context.original_exception)):
        context.is_disconnect = True
