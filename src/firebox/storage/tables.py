"""The tables, as of the latest migration. `firebox db check` compares a database with them.

* firebox_users: users; of a token only the SHA-256 and the last characters.
* firebox_languages: languages registered by operators, a name and a version that map to an image.
* shared_codes: shared snippets; the name and the columns are Runner's, so that its database can be taken over.
* firebox_usage: usage per subject, summed in time windows; ends_at_s: end of the window, seconds since 1970.
* firebox_leases: leases of concurrent runs; ends_at_ms: expiry, milliseconds since 1970.
* firebox_taken_over: tables that existed before; a downgrade restores them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Dialect, Index, MetaData, Table, UniqueConstraint, func
from sqlalchemy.types import BigInteger, DateTime, Integer, LargeBinary, Text, TypeDecorator

NAMES = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
}
"""Names every constraint, so that a migration can refer to it."""


class Moment(TypeDecorator[datetime]):
    """A point in time: timezone-aware and in UTC in Python, whatever the database stores."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite generates ids only for a column of type INTEGER.
Id = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(naming_convention=NAMES)


def _moment(name: str, **options: Any) -> Column[datetime]:
    return Column(name, Moment, nullable=False, **options)


# Ids are never reused (AUTOINCREMENT on SQLite, a sequence on PostgreSQL): links, counts and permissions refer to them.
users = Table(
    "firebox_users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("token_sha256", LargeBinary, nullable=False),
    Column("token_hint", Text, nullable=False),
    Column("disabled_at", Moment),
    Column("runs_per_minute", BigInteger),
    Column("concurrent_runs", BigInteger),
    Column("cpu_seconds_per_day", BigInteger),
    _moment("created_at"),
    _moment("modified_at"),
    UniqueConstraint("uuid"),
    UniqueConstraint("name"),
    UniqueConstraint("token_sha256"),
    sqlite_autoincrement=True,
)

languages = Table(
    "firebox_languages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("image", Text, nullable=False),
    _moment("created_at"),
    _moment("modified_at"),
    UniqueConstraint("name", "version"),
)

snippets = Table(
    "shared_codes",
    metadata,
    Column("id", Id, primary_key=True),
    Column("code", Text, nullable=False),
    Column("output", Text),
    Column("error", Text),
    _moment("created_at", server_default=func.now()),
    # Runner supports one language: the rows it created are Go.
    Column("language", Text, nullable=False, server_default="go"),
    Index(None, "created_at"),
    sqlite_autoincrement=True,
)

usage = Table(
    "firebox_usage",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("window_s", BigInteger, primary_key=True),
    Column("ends_at_s", BigInteger, primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Index(None, "ends_at_s"),
)

leases = Table(
    "firebox_leases",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("lease_id", Text, primary_key=True),
    Column("ends_at_ms", BigInteger, nullable=False),
    Index(None, "ends_at_ms"),
)

taken_over = Table("firebox_taken_over", metadata, Column("name", Text, primary_key=True))
