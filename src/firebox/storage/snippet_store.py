"""Shared snippets, in a table that Runner's own server can read and write as well."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from firebox.domain.errors import NotFound
from firebox.storage.database import Database
from firebox.storage.records import Snippet
from firebox.storage.storable_text import can_be_id, check_storable, keepable
from firebox.storage.tables import snippets


class SnippetTable:
    """The snippets, one transaction a call. Each call raises PartUnavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, *, code: str, language: str, output: str, error: str) -> Snippet:
        """Keep a snippet. In output and error, U+FFFD stands for what no database keeps.

        Raises: InvalidRequest for code with a NUL character or half a surrogate pair: it could not be given back as it was.
        """
        values = {
            "code": check_storable(code, where="code"),
            "language": check_storable(language, where="language"),
            "output": keepable(output),
            "error": keepable(error),
            "created_at": datetime.now(UTC),
        }

        def work(connection: Connection) -> Snippet:
            return _snippet(connection.execute(insert(snippets).values(values).returning(snippets)).one())

        return await self._database.write(work)

    async def get(self, id: int) -> Snippet:  # noqa: A002 - the field's own name
        """Raises: NotFound."""

        def work(connection: Connection) -> Snippet | None:
            row = connection.execute(select(snippets).where(snippets.c.id == id)).one_or_none()
            return None if row is None else _snippet(row)

        found = await self._database.read(work) if can_be_id(id) else None
        if found is None:
            raise NotFound("snippet", str(id))
        return found

    async def remove(self, id: int) -> None:  # noqa: A002 - the field's own name
        """Raises: NotFound."""

        def work(connection: Connection) -> int:
            return connection.execute(delete(snippets).where(snippets.c.id == id)).rowcount

        if not can_be_id(id) or await self._database.write(work) == 0:
            raise NotFound("snippet", str(id))

    async def remove_older(self, before: datetime, at_most: int) -> int:
        """Forget snippets that were shared before then, the oldest first; say how many."""
        chosen = select(snippets.c.id).where(snippets.c.created_at < before).order_by(snippets.c.created_at).limit(at_most)

        def work(connection: Connection) -> int:
            return connection.execute(delete(snippets).where(snippets.c.id.in_(chosen))).rowcount

        return await self._database.write(work)


def _snippet(row: Row[Any]) -> Snippet:
    return Snippet(
        id=row.id,
        code=row.code,
        language=row.language,
        output=row.output or "",
        error=row.error or "",
        created_at=row.created_at,
    )
