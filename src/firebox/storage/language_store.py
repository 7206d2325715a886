"""Languages registered by operators: a name and a version that map to an image."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, delete, select

from firebox.domain.errors import Conflict, NotFound
from firebox.storage.database import Database
from firebox.storage.records import Language, language_id
from firebox.storage.storable_text import NAME_CHARACTERS, check_storable, is_storable
from firebox.storage.tables import languages


class LanguageTable:
    """The registered languages, one transaction per call. Each call raises PartUnavailable when the database is unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Language]:
        """Return all languages, ordered by name and version as text."""

        def work(connection: Connection) -> list[Language]:
            return [Language(**row) for row in connection.execute(select(languages)).mappings()]

        # Sorted here, so that the database's collation does not matter.
        return sorted(await self._database.read(work), key=lambda language: (language.name, language.version))

    async def get(self, id: str) -> Language:  # noqa: A002 - the field's own name
        """Raises: NotFound."""
        found = await self._find(languages.c.id == id) if is_storable(id) else None
        if found is None:
            raise NotFound("language", id)
        return found

    async def find(self, name: str, version: str) -> Language | None:
        """Return a language by name and version, or None if it is not registered."""
        if not is_storable(name + version):
            return None
        return await self._find((languages.c.name == name) & (languages.c.version == version))

    async def put(self, name: str, version: str, *, image: str) -> Language:
        """Register a language, or replace its image.

        Raises: InvalidRequest for text that cannot be stored, Conflict when another language has the same id.
        """
        now = datetime.now(UTC)
        statement = self._database.insert(languages).values(
            id=language_id(
                check_storable(name, where="name", max_characters=NAME_CHARACTERS),
                check_storable(version, where="version", max_characters=NAME_CHARACTERS),
            ),
            name=name,
            version=version,
            image=check_storable(image, where="image"),
            created_at=now,
            modified_at=now,
        )
        statement = statement.on_conflict_do_update(
            index_elements=["id"],
            set_={"image": statement.excluded.image, "modified_at": statement.excluded.modified_at},
            # "a" + "bc" and "ab" + "c" have the same id.
            where=languages.c.name == statement.excluded.name,
        )

        def work(connection: Connection) -> Language | None:
            row = connection.execute(statement.returning(languages)).mappings().one_or_none()
            return None if row is None else Language(**row)

        kept = await self._database.write(work)
        if kept is None:
            raise Conflict(
                f"another language has the same id as {name!r} {version!r}: their names and versions are equal when concatenated"
            )
        return kept

    async def remove(self, id: str) -> None:  # noqa: A002 - the field's own name
        """Raises: NotFound."""

        def work(connection: Connection) -> int:
            return connection.execute(delete(languages).where(languages.c.id == id)).rowcount

        if not is_storable(id) or await self._database.write(work) == 0:
            raise NotFound("language", id)

    async def _find(self, condition: ColumnElement[bool]) -> Language | None:
        def work(connection: Connection) -> Language | None:
            row = connection.execute(select(languages).where(condition)).mappings().one_or_none()
            return None if row is None else Language(**row)

        return await self._database.read(work)
