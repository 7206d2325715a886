"""Languages registered by operators: a name and a version that map to an image."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select

from firebox.domain.errors import Conflict
from firebox.storage.record_store import NAME_CHARACTERS, RecordStore, check_storable, is_storable
from firebox.storage.records import Language, language_id
from firebox.storage.tables import languages


class LanguageTable(RecordStore[str, Language]):
    kind = "language"
    table = languages
    columns = tuple(languages.c)
    record = Language

    async def all(self) -> list[Language]:
        """Return all languages, ordered by name and version as text."""
        # Sorted here, so that the database's collation does not matter.
        return sorted(await self._read(select(*self.columns)), key=lambda language: (language.name, language.version))

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
        check_storable(name, where="name", max_characters=NAME_CHARACTERS)
        check_storable(version, where="version", max_characters=NAME_CHARACTERS)
        check_storable(image, where="image")
        values = {"id": language_id(name, version), "name": name, "version": version, "image": image}
        statement = self._database.insert(languages).values(**values, created_at=now, modified_at=now)
        statement = statement.on_conflict_do_update(
            index_elements=["id"],
            set_={"image": statement.excluded.image, "modified_at": statement.excluded.modified_at},
            # "a" + "bc" and "ab" + "c" have the same id.
            where=languages.c.name == statement.excluded.name,
        )
        kept = await self._write(statement)
        if not kept:
            raise Conflict(
                f"another language has the same id as {name!r} {version!r}: their names and versions are equal when concatenated"
            )
        return kept[0]
