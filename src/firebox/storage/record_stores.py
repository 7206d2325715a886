"""The rows of tables as records, one transaction per call: users, languages and snippets; and checks of what can be stored.

PostgreSQL rejects U+0000 and lone surrogates; the same rule holds for SQLite.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar
from uuid import uuid4

from msgspec import Struct, structs
from sqlalchemy import ColumnElement, CursorResult, Select, Table, UpdateBase, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from firebox.domain.errors import Conflict, InvalidRequest, NotFound
from firebox.storage.database import Database
from firebox.storage.records import DEFAULT_QUOTA, Language, Quota, Role, Snippet, User, hash_token, language_id
from firebox.storage.tables import languages, snippets, users

LARGEST_INTEGER = 2**63 - 1
NAME_CHARACTERS = 255
"""Names are indexed, and PostgreSQL limits an index entry to 2,704 bytes."""
HINT_CHARACTERS = 4
HINTED_FROM_CHARACTERS = 16
"""A hint to a shorter token would reveal too much of it."""

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
        return await self._database.read(lambda connection: self._records(connection.execute(statement)))

    async def _write(self, statement: UpdateBase) -> list[Record]:
        """Insert or update rows. Return the new records."""
        returning = statement.returning(*self.columns)
        return await self._database.write(lambda connection: self._records(connection.execute(returning)))

    def _records(self, rows: CursorResult[Any]) -> list[Record]:
        return [self.record(**row) for row in rows.mappings()]

    async def _remove_oldest(self, moment: ColumnElement[Any], before: datetime, at_most: int) -> int:
        """Delete the oldest rows whose `moment` is before a time. Return how many were deleted."""
        oldest = select(self.table.c.id).where(moment < before).order_by(moment).limit(at_most)
        return await self._delete(self.table.c.id.in_(oldest))

    async def _delete(self, condition: ColumnElement[bool]) -> int:
        statement = delete(self.table).where(condition)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)


def _user(*, disabled_at: datetime | None, **row: Any) -> User:
    return User(**row, disabled=disabled_at is not None)


class Users(RecordStore[int, User]):
    """Users and their tokens. Only the SHA-256 of a token is stored."""

    kind = "user"
    table = users
    columns = tuple(column for column in users.c if column is not users.c.token_sha256)
    record = staticmethod(_user)

    async def add(self, *, name: str, token: str, role: Role = "user", quota: Quota = DEFAULT_QUOTA) -> User:
        """Create a user. Raises: Conflict when the name or the token is taken, InvalidRequest for what cannot be stored."""
        now = datetime.now(UTC)
        check_storable(name, where="name", max_characters=NAME_CHARACTERS)
        values = {"uuid": str(uuid4()), "name": name, "role": role, "created_at": now, "modified_at": now}
        try:
            (user,) = await self._write(insert(users).values(values | _token_values(token) | _limit_values(quota)))
        except IntegrityError as error:
            raise _taken(error, name) from None
        return user

    async def all(self) -> list[User]:
        """Return all users, oldest first."""
        return await self._read(select(*self.columns).order_by(users.c.id))

    async def by_uuid(self, uuid: str) -> User:
        """Raises: NotFound."""
        return await self._get("uuid", uuid)

    async def by_name(self, name: str) -> User:
        """Raises: NotFound."""
        return await self._get("name", name)

    async def by_token(self, token: str) -> User | None:
        """Return the user with this token, even if disabled; None if no user has it."""
        return await self._find(users.c.token_sha256 == hash_token(token))

    async def set_token(self, user_id: int, token: str) -> User:
        """Replace a user's token; the old one becomes invalid. Raises: NotFound, Conflict when it is taken."""
        try:
            return await self._change(user_id, _token_values(token))
        except IntegrityError as error:
            raise _taken(error, "") from None

    async def set_disabled(self, user_id: int, *, disabled: bool) -> User:
        """Disable or enable a user. Raises: NotFound."""
        if not disabled:
            return await self._change(user_id, {"disabled_at": None})
        return await self._change(user_id, {"disabled_at": datetime.now(UTC)}, users.c.disabled_at.is_(None))

    async def set_quota(self, user_id: int, quota: Quota) -> User:
        """Replace a user's limits. Raises: NotFound, InvalidRequest for a negative number."""
        return await self._change(user_id, _limit_values(quota))

    async def remove_disabled(self, before: datetime, at_most: int) -> int:
        """Delete the users disabled before a time, oldest first. Return how many were deleted."""
        return await self._remove_oldest(users.c.disabled_at, before, at_most)

    async def _change(self, user_id: int, values: dict[str, Any], *conditions: ColumnElement[bool]) -> User:
        """Update a user, unless a condition does not hold. Raises: NotFound."""
        if is_possible_key(user_id):
            statement = update(users).where(users.c.id == user_id, *conditions)
            changed = await self._write(statement.values(**values, modified_at=datetime.now(UTC)))
            if changed:
                return changed[0]
        return await self.get(user_id)


def _token_values(token: str) -> dict[str, Any]:
    hint = token[-HINT_CHARACTERS:] if len(token) >= HINTED_FROM_CHARACTERS else ""
    return {"token_sha256": hash_token(token), "token_hint": hint if is_storable(hint) else ""}


def _limit_values(quota: Quota) -> dict[str, Any]:
    return {name: check_storable_number(limit, where=name) for name, limit in structs.asdict(quota).items()}


def _taken(error: IntegrityError, name: str) -> Conflict:
    """Both databases name the column or the constraint in their message."""
    if "token_sha256" in str(error.orig):
        return Conflict("that token is taken", hint="choose another one, or let Firebox generate one")
    return Conflict(f"the name {name!r} is taken")


class LanguageTable(RecordStore[str, Language]):
    """Languages registered by operators: a name and a version that map to an image."""

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
        """Register a language, or replace its image. Raises: InvalidRequest, Conflict when another language has the same id."""
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


def _snippet(*, output: str | None, error: str | None, **row: Any) -> Snippet:
    return Snippet(**row, output=output or "", error=error or "")


class SnippetTable(RecordStore[int, Snippet]):
    """Shared snippets, in a table that Runner's own server can read and write as well."""

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
