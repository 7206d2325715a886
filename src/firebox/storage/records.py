"""Rows of the tables as values, without importing the database library."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal

from msgspec import Struct

Role = Literal["user", "admin"]


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
