"""Users and their tokens. Only the SHA-256 of a token is stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from msgspec import structs
from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.exc import IntegrityError

from firebox.domain.errors import Conflict
from firebox.storage.record_store import (
    NAME_CHARACTERS,
    RecordStore,
    check_storable,
    check_storable_number,
    is_possible_key,
    is_storable,
)
from firebox.storage.records import DEFAULT_QUOTA, Quota, Role, User, hash_token
from firebox.storage.tables import users

HINT_CHARACTERS = 4
HINTED_FROM_CHARACTERS = 16
"""A hint to a shorter token would reveal too much of it."""


def _user(*, disabled_at: datetime | None, **row: Any) -> User:
    return User(**row, disabled=disabled_at is not None)


class Users(RecordStore[int, User]):
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
