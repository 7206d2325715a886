"""Rows of the tables as values, without importing the database library."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal

from msgspec import Struct, convert

Role = Literal["user", "admin"]


class Quota(Struct, frozen=True, kw_only=True):
    """The limits of a client. None: the default in the settings; 0: no limit."""

    runs_per_minute: int | None = None
    concurrent_runs: int | None = None
    cpu_seconds_per_day: int | None = None


DEFAULT_QUOTA = Quota()
"""That of the settings."""


class User(Struct, frozen=True, kw_only=True):
    """A user. id: ascending, never reused; token_hint: the last characters of the token, to tell tokens apart.

    A limit of None means the default in the settings. Times are in UTC.
    """

    id: int
    uuid: str
    name: str
    role: Role
    token_hint: str
    disabled: bool
    runs_per_minute: int | None
    concurrent_runs: int | None
    cpu_seconds_per_day: int | None
    created_at: datetime
    modified_at: datetime

    @property
    def quota(self) -> Quota:
        """The user's own limits."""
        return convert(self, Quota, from_attributes=True)


class Language(Struct, frozen=True, kw_only=True):
    """A registered language. id: derived from name and version (`language_id`); times are in UTC."""

    id: str
    name: str
    version: str
    image: str
    created_at: datetime
    modified_at: datetime


class Snippet(Struct, frozen=True, kw_only=True):
    """A shared snippet. id: ascending, never reused; output and error: what it printed when it was shared."""

    id: int
    code: str
    language: str
    output: str
    error: str
    created_at: datetime


def language_id(name: str, version: str) -> str:
    """Return the id of a language: the hexadecimal SHA-1 of its name and version, concatenated."""
    return hashlib.sha1((name + version).encode(), usedforsecurity=False).hexdigest()


def hash_token(token: str) -> bytes:
    """Return the stored form of a token. Tokens are long and random, so no slow hash is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
