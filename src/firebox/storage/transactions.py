"""One transaction after the other: what every kind of database does for `Database`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    # The one that is not used costs a server megabytes.
    from sqlalchemy.dialects import postgresql, sqlite

T = TypeVar("T")
Work = Callable[["Connection"], T]
"""What is done in one transaction. It runs where it may block, and holds nothing of the event loop's."""


class Transactions(Protocol):
    """Where the transactions of one kind of database happen."""

    async def run(self, work: Work[T], *, writes: bool) -> T:
        """Do `work` in one transaction, and keep all of it or nothing.

        Raises: BrokenConnection when nothing of it can have been kept and a new connection may do; the driver's errors.
        """
        ...

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Begin an INSERT of this dialect."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
