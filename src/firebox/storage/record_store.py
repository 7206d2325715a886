"""The rows of a table as records, one transaction per call; and checks of what can be stored.

PostgreSQL rejects U+0000 and lone surrogates; the same rule holds for SQLite.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

from msgspec import Struct
from sqlalchemy import ColumnElement, Select, Table, UpdateBase, delete, select

from firebox.domain.errors import InvalidRequest, NotFound
from firebox.storage.database import Database

LARGEST_INTEGER = 2**63 - 1
NAME_CHARACTERS = 255
"""Names are indexed, and PostgreSQL limits an index entry to 2,704 bytes."""

Id = TypeVar("Id", int, str)
Record = TypeVar("Record", bound=Struct)

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class RecordStore(Generic[Id, Record]):
    """Rows of `table`, of which `record` makes records from `columns`. Each call may raise PartUnavailable."""

    kind: ClassVar[str]
    """Name of a record in errors."""
    table: ClassVar[Table]
    columns: ClassVar[tuple[ColumnElement[Any], ...]]
    record: Callable[..., Record]

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, id: Id) -> Record:  # noqa: A002 - the field's own name
        """Raises: NotFound."""
        return await self._get("id", id)

    async def remove(self, id: Id) -> None:  # noqa: A002 - the field's own name
        """Raises: NotFound."""
        if not is_possible_key(id) or await self._delete(self.table.c.id == id) == 0:
            raise NotFound(self.kind, str(id))

    async def _get(self, column: str, key: int | str) -> Record:
        """Return the record with this key in a unique column. Raises: NotFound."""
        found = await self._find(self.table.c[column] == key) if is_possible_key(key) else None
        if found is None:
            raise NotFound(self.kind, str(key))
        return found

    async def _find(self, condition: ColumnElement[bool]) -> Record | None:
        """Return the only record that meets a condition, or None."""
        found = await self._read(select(*self.columns).where(condition))
        return found[0] if found else None

    async def _read(self, statement: Select[Any]) -> list[Record]:
        """Return the records of a query for `columns`."""
        rows = await self._database.read(lambda connection: connection.execute(statement).mappings().all())
        return [self.record(**row) for row in rows]

    async def _write(self, statement: UpdateBase) -> list[Record]:
        """Insert or update rows. Return the new records."""
        returning = statement.returning(*self.columns)
        rows = await self._database.write(lambda connection: connection.execute(returning).mappings().all())
        return [self.record(**row) for row in rows]

    async def _remove_oldest(self, moment: ColumnElement[Any], before: datetime, at_most: int) -> int:
        """Delete the oldest rows whose `moment` is before a time. Return how many were deleted."""
        oldest = select(self.table.c.id).where(moment < before).order_by(moment).limit(at_most)
        return await self._delete(self.table.c.id.in_(oldest))

    async def _delete(self, condition: ColumnElement[bool]) -> int:
        statement = delete(self.table).where(condition)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)


def is_storable(text: str) -> bool:
    return _UNSTORABLE.search(text) is None


def check_storable(text: str, *, where: str, max_characters: int = 0) -> str:
    """Return the text. max_characters: 0 for no maximum. Raises: InvalidRequest for text that cannot be stored unchanged."""
    if max_characters and len(text) > max_characters:
        raise InvalidRequest(f"{len(text)} characters; at most {max_characters} are allowed", where=where)
    if not is_storable(text):
        raise InvalidRequest("text with a NUL character or a lone surrogate cannot be stored", where=where)
    return text


def replace_unstorable(text: str) -> str:
    """Replace unstorable characters by U+FFFD: for output, where that already stands for undecodable bytes."""
    return _UNSTORABLE.sub("\ufffd", text)


def check_storable_number(number: int | None, *, where: str) -> int | None:
    """Return the number. Raises: InvalidRequest if it is negative or too large for a database."""
    if number is not None and not 0 <= number <= LARGEST_INTEGER:
        raise InvalidRequest(f"{number} is not a whole number from 0 to {LARGEST_INTEGER}", where=where)
    return number


def is_possible_key(key: int | str) -> bool:
    """Return whether a row may have this id or name: ids are positive, and databases reject larger numbers."""
    return is_storable(key) if isinstance(key, str) else 0 < key <= LARGEST_INTEGER
