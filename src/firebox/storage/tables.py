"""The tables, as the newest migration leaves them: `firebox db check` compares a database with these.

* firebox_users: who may use the server; of a token only its SHA-256 and its last characters.
* firebox_languages: what operators registered, a name and a version that stand for an image.
* shared_codes: shared snippets; the name and the columns are Runner's, so that its database can be taken over.
* firebox_usage: what each subject used, summed by windows of time; ends_at_s: when a window is over, seconds since 1970.
* firebox_leases: places that are taken; ends_at_ms: when each is free again at the latest, milliseconds since 1970.
* firebox_taken_over: tables that were there before us; moving the schema down gives them back.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    func,
)

NAMES = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
}
"""Every constraint has a name, so that a migration can speak of it."""


class Moment(TypeDecorator[datetime]):
    """A point in time: aware and in UTC on our side, whatever the database keeps."""

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


# SQLite counts only a column of type INTEGER up by itself.
Id = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(naming_convention=NAMES)


def _moment(name: str, **options: Any) -> Column[datetime]:
    return Column(name, Moment, nullable=False, **options)


# An id is never given twice (AUTOINCREMENT on SQLite, a sequence on PostgreSQL): links, counts and permissions hang on it.
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
    # Runner knows one language: the rows that it made are Go.
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
