"""Shared snippets, in a table that Runner's own server can read and write as well."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert

from firebox.storage.record_store import RecordStore, check_storable, replace_unstorable
from firebox.storage.records import Snippet
from firebox.storage.tables import snippets


def _snippet(*, output: str | None, error: str | None, **row: Any) -> Snippet:
    return Snippet(**row, output=output or "", error=error or "")


class SnippetTable(RecordStore[int, Snippet]):
    kind = "snippet"
    table = snippets
    columns = tuple(snippets.c)
    record = staticmethod(_snippet)

    async def add(self, *, code: str, language: str, output: str, error: str) -> Snippet:
        """Store a snippet. In output and error, characters that cannot be stored become U+FFFD.

        Raises: InvalidRequest for code with a NUL character or a lone surrogate, which could not be returned unchanged.
        """
        statement = insert(snippets).values(
            code=check_storable(code, where="code"),
            language=check_storable(language, where="language"),
            output=replace_unstorable(output),
            error=replace_unstorable(error),
            created_at=datetime.now(UTC),
        )
        (snippet,) = await self._write(statement)
        return snippet

    async def remove_older(self, before: datetime, at_most: int) -> int:
        """Delete the oldest snippets shared before a time. Return how many were deleted."""
        return await self._remove_oldest(snippets.c.created_at, before, at_most)
