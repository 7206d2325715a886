"""The database schema: its version, upgrades and downgrades.

Alembic is loaded only to migrate. A normal start needs one small query, and an empty database gets all tables at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import structlog

from firebox.domain.errors import SettingsError
from firebox.settings.settings import Settings
from firebox.storage.database import Database
from firebox.storage.database_address import Address

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

HEAD = "0001"
"""The latest version. A test checks that it is the last migration's."""
BASE = "base"
"""The version of a database without tables of ours."""
VERSION_TABLE = "firebox_schema"
"""The table with the version of a database."""
MIGRATIONS = Path(__file__).parent / "migrations"

PATIENCE_S = 600.0
"""Timeout of a migration, and of waiting for that of another server."""
LOCK = 0x66697265626F78  # "firebox"

_log = structlog.get_logger("firebox.storage")


async def prepare_schema(database: Database, settings: Settings) -> None:
    """Upgrade when a server starts. Raises: SettingsError for an unknown version, or an older one with `database_upgrade` off."""
    version = await read_version(database)
    if version == HEAD:
        return
    _check_known(database.address, version)
    if not settings.database_upgrade:
        allowed = f"true, since the schema of {database.address.shown} is {version} and this Firebox needs {HEAD}"
        raise settings.refused("database_upgrade", allowed=allowed, hint="or upgrade it by hand: firebox db upgrade")
    if version == BASE:
        async with _open(database.address) as migrated:
            if await migrated.write(_make_tables):
                return
    await upgrade(database.address)


async def read_version(database: Database) -> str:
    """Return the version of the schema; BASE without tables of ours. Raises: PartUnavailable."""
    return await database.read(_version)


async def upgrade(address: Address, version: str = "head") -> tuple[str, str]:
    """Upgrade atomically, one server at a time. Return the versions before and after. Raises: SettingsError, PartUnavailable."""
    return await _move(address, "upgrade", version)


async def downgrade(address: Address, version: str) -> tuple[str, str]:
    """Downgrade the schema to BASE or a version, as `upgrade` does. Data that the older schema lacks is lost."""
    return await _move(address, "downgrade", version)


async def differences(address: Address) -> list[str]:
    """Compare the tables of a database with ours. Return one line per difference. Raises: PartUnavailable."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from firebox.storage.tables import metadata

    def compare(connection: Connection) -> list[str]:
        options: dict[str, Any] = {"compare_type": True, "include_object": _is_ours, "version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        return [_describe(difference) for difference in compare_metadata(context, metadata)]

    async with _open(address) as database:
        return await database.read(compare)


def versions() -> list[str]:
    """Return the schema versions known here, oldest first."""
    from alembic.script import ScriptDirectory

    return [each.revision for each in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]


def _open(address: Address) -> Database:
    return Database(address, single=True, patience_s=PATIENCE_S)


async def _move(address: Address, direction: Literal["upgrade", "downgrade"], version: str) -> tuple[str, str]:
    from alembic import command

    def work(connection: Connection) -> tuple[str, str]:
        _lock(connection)
        before = _version(connection)
        _check_known(address, before)
        config = _config()
        config.attributes["connection"] = connection
        getattr(command, direction)(config, version)
        return before, _version(connection)

    async with _open(address) as database:
        before, after = await database.write(work)
    if before != after:
        _log.info("database schema migrated", before=before, after=after)
    return before, after


def _make_tables(connection: Connection) -> bool:
    """Create the latest schema in an empty database. Return False if there are tables, which migrations must handle.

    This is the usual first start: Alembic would take two thirds of the memory of all of storage, for the life of the server.
    A test checks that the migrations have the same result.
    """
    from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, String, Table, inspect

    from firebox.storage.tables import metadata

    _lock(connection)
    if _version(connection) == HEAD:
        # Another server was faster.
        return True
    if {*inspect(connection).get_table_names()} & {*metadata.tables, VERSION_TABLE}:
        return False
    metadata.create_all(connection)
    key = PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc")
    version_table = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), nullable=False), key)
    version_table.create(connection)
    connection.execute(version_table.insert().values(version_num=HEAD))
    return True


def _lock(connection: Connection) -> None:
    """Hold a lock against other migrations until the transaction ends. SQLite has a single writer anyway."""
    from sqlalchemy import text

    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = '{int(PATIENCE_S)}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})


def _version(connection: Connection) -> str:
    from sqlalchemy import inspect, text

    if not inspect(connection).has_table(VERSION_TABLE):
        return BASE
    return str(connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() or BASE)  # noqa: S608 - our own name


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _check_known(address: Address, version: str) -> None:
    if version == BASE or version in versions():
        return
    raise SettingsError(
        "database_url",
        value=address.shown,
        allowed=f"a database of this Firebox or an older one; its schema is {version}, and {HEAD} is the latest known here",
        hint="start the newer Firebox again, and use it to downgrade the schema: firebox db downgrade",
    )


def _is_ours(_object: Any, _name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
    """Ignore foreign tables in the same database."""
    return not (type_ == "table" and reflected and compare_to is None)


def _describe(difference: list[tuple[Any, ...]] | tuple[Any, ...]) -> str:
    """Describe an entry of Alembic's comparison: a tuple, or a list of tuples for a column."""
    entry = difference[0] if isinstance(difference, list) else difference
    kind, *rest = entry
    names = [str(getattr(each, "name", None) or each) for each in rest if each is not None]
    return f"{kind.replace('_', ' ')}: {' '.join(names)}"[:300]
