"""Users and their tokens. Only the SHA-256 of a token is stored."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from firebox.domain.errors import Conflict, NotFound
from firebox.storage.database import Database
from firebox.storage.records import Role, User
from firebox.storage.storable_text import NAME_CHARACTERS, check_storable, check_storable_number, is_possible_id, is_storable
from firebox.storage.tables import users

HINT_CHARACTERS = 4
HINTED_FROM_CHARACTERS = 16
"""A hint to a shorter token would reveal too much of it."""


class Users:
    """The users, one transaction per call. Each call raises PartUnavailable when the database is unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        *,
        name: str,
        token: str,
        role: Role = "user",
        runs_per_minute: int | None = None,
        concurrent_runs: int | None = None,
        cpu_seconds_per_day: int | None = None,
    ) -> User:
        """Create a user. Raises: Conflict when the name or the token is taken, InvalidRequest for what cannot be stored."""
        now = datetime.now(UTC)
        values = {
            "uuid": str(uuid4()),
            "name": check_storable(name, where="name", max_characters=NAME_CHARACTERS),
            "role": role,
            "created_at": now,
            "modified_at": now,
            **_token_values(token),
            **_limit_values(
                runs_per_minute=runs_per_minute, concurrent_runs=concurrent_runs, cpu_seconds_per_day=cpu_seconds_per_day
            ),
        }

        def work(connection: Connection) -> User:
            return _user(connection.execute(insert(users).values(values).returning(users)).one())

        try:
            return await self._database.write(work)
        except IntegrityError as error:
            raise _taken(error, name) from None

    async def all(self) -> list[User]:
        """Return all users, oldest first."""

        def work(connection: Connection) -> list[User]:
            return [_user(row) for row in connection.execute(select(users).order_by(users.c.id))]

        return await self._database.read(work)

    async def get(self, user_id: int) -> User:
        """Raises: NotFound."""
        found = await self._find(users.c.id == user_id) if is_possible_id(user_id) else None
        return _found(found, str(user_id))

    async def by_uuid(self, uuid: str) -> User:
        """Raises: NotFound."""
        return _found(await self._find(users.c.uuid == uuid) if is_storable(uuid) else None, uuid)

    async def by_name(self, name: str) -> User:
        """Raises: NotFound."""
        return _found(await self._find(users.c.name == name) if is_storable(name) else None, name)

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

    async def set_limits(
        self, user_id: int, *, runs_per_minute: int | None, concurrent_runs: int | None, cpu_seconds_per_day: int | None
    ) -> User:
        """Replace a user's limits; None means the default. Raises: NotFound, InvalidRequest for a negative number."""
        return await self._change(
            user_id,
            _limit_values(
                runs_per_minute=runs_per_minute, concurrent_runs=concurrent_runs, cpu_seconds_per_day=cpu_seconds_per_day
            ),
        )

    async def remove(self, user_id: int) -> None:
        """Delete a user. Raises: NotFound."""

        def work(connection: Connection) -> int:
            return connection.execute(delete(users).where(users.c.id == user_id)).rowcount

        if not is_possible_id(user_id) or await self._database.write(work) == 0:
            raise NotFound("user", str(user_id))

    async def remove_disabled(self, before: datetime, at_most: int) -> int:
        """Delete the users disabled before a time, oldest first. Return how many were deleted."""
        chosen = select(users.c.id).where(users.c.disabled_at < before).order_by(users.c.disabled_at).limit(at_most)

        def work(connection: Connection) -> int:
            return connection.execute(delete(users).where(users.c.id.in_(chosen))).rowcount

        return await self._database.write(work)

    async def _find(self, condition: ColumnElement[bool]) -> User | None:
        def work(connection: Connection) -> User | None:
            row = connection.execute(select(users).where(condition)).one_or_none()
            return None if row is None else _user(row)

        return await self._database.read(work)

    async def _change(self, user_id: int, values: dict[str, Any], condition: ColumnElement[bool] | None = None) -> User:
        """Update a user, unless `condition` does not hold."""
        statement = update(users).where(users.c.id == user_id).values(**values, modified_at=datetime.now(UTC))
        if condition is not None:
            statement = statement.where(condition)

        def work(connection: Connection) -> User | None:
            connection.execute(statement)
            row = connection.execute(select(users).where(users.c.id == user_id)).one_or_none()
            return None if row is None else _user(row)

        return _found(await self._database.write(work) if is_possible_id(user_id) else None, str(user_id))


def hash_token(token: str) -> bytes:
    """Return the stored form of a token. Tokens are long and random, so no slow hash is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _token_values(token: str) -> dict[str, Any]:
    hint = token[-HINT_CHARACTERS:] if len(token) >= HINTED_FROM_CHARACTERS else ""
    return {"token_sha256": hash_token(token), "token_hint": hint if is_storable(hint) else ""}


def _limit_values(*, runs_per_minute: int | None, concurrent_runs: int | None, cpu_seconds_per_day: int | None) -> dict[str, Any]:
    limits = {
        "runs_per_minute": runs_per_minute,
        "concurrent_runs": concurrent_runs,
        "cpu_seconds_per_day": cpu_seconds_per_day,
    }
    return {name: check_storable_number(limit, where=name) for name, limit in limits.items()}


def _user(row: Row[Any]) -> User:
    return User(
        id=row.id,
        uuid=row.uuid,
        name=row.name,
        role=row.role,
        token_hint=row.token_hint,
        disabled=row.disabled_at is not None,
        runs_per_minute=row.runs_per_minute,
        concurrent_runs=row.concurrent_runs,
        cpu_seconds_per_day=row.cpu_seconds_per_day,
        created_at=row.created_at,
        modified_at=row.modified_at,
    )


def _found(user: User | None, name: str) -> User:
    if user is None:
        raise NotFound("user", name)
    return user


def _taken(error: IntegrityError, name: str) -> Conflict:
    """Both databases name the column or the constraint in their message."""
    if "token_sha256" in str(error.orig):
        return Conflict("that token is taken", hint="choose another one, or let Firebox generate one")
    return Conflict(f"the name {name!r} is taken")
