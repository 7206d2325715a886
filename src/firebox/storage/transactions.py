"""Transactions: the interface that every kind of database implements."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    # Importing the unused one would cost megabytes.
    from sqlalchemy.dialects import postgresql, sqlite

T = TypeVar("T")
Work = Callable[["Connection"], T]
"""Work done in one transaction. It runs where it may block, so it must not touch the event loop."""


class Transactions(Protocol):
    """Runs the transactions of one kind of database."""

    async def run(self, work: Work[T], *, writes: bool) -> T:
        """Run `work` in one transaction, atomically.

        Raises: BrokenConnection when nothing can have been committed and a new connection may work; errors of the driver.
        """
        ...

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Create an INSERT in this dialect."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
