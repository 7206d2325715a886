"""The schema of the database: which version it has, and moving it up and down.

Alembic does the moving and is loaded for that only; what a server needs at each start is one small question, and in an empty
database all tables at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from firebox.domain.errors import SettingsError
from firebox.settings.settings import Settings
from firebox.storage.database import Database
from firebox.storage.database_address import Address
from firebox.storage.schema_version import BASE, HEAD, VERSION_TABLE

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).parent / "migrations"

PATIENCE_S = 600.0
"""How long a move may take, and how long one waits for another server that is at it."""
LOCK = 0x66697265626F78  # "firebox"

_log = structlog.get_logger("firebox.storage")


async def prepare_schema(database: Database, settings: Settings) -> None:
    """See to it that the schema is the newest one, at the start of a server.

    Raises: SettingsError when it is another one and `database_upgrade` is off, or one that this Firebox does not know.
    """
    version = await read_version(database)
    if version == HEAD:
        return
    if version != BASE and version not in versions():
        raise _unknown(database.address, version)
    if not settings.database_upgrade:
        raise SettingsError(
            "database_upgrade",
            False,
            f"true, since the schema of {database.address.shown} is {version} and this Firebox needs {HEAD}",
            source=settings.source("database_upgrade"),
            hint="or bring it up to date by hand: firebox db upgrade",
        )
    if version != BASE or not await _make_tables(database.address):
        await upgrade(database.address)


async def read_version(database: Database) -> str:
    """Say which version the schema has; BASE for a database without our tables. Raises: PartUnavailable."""
    return await database.read(_version)


async def upgrade(address: Address, version: str = "head") -> tuple[str, str]:
    """Move the schema up; give the versions before and after. All of it is done, or nothing.

    Servers that start at once wait for each other. Raises: SettingsError, PartUnavailable.
    """
    return await _move(address, lambda config: _command().upgrade(config, version))


async def downgrade(address: Address, version: str) -> tuple[str, str]:
    """Move the schema down, to BASE or a version; give the versions before and after. What only a newer schema can hold is lost.

    Raises: SettingsError, PartUnavailable.
    """
    return await _move(address, lambda config: _command().downgrade(config, version))


async def differences(address: Address) -> list[str]:
    """Compare the tables of a database with ours; say in a line each what differs. Raises: PartUnavailable."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from firebox.storage.tables import metadata

    def compare(connection: Connection) -> list[str]:
        options: dict[str, Any] = {"compare_type": True, "include_object": _is_ours, "version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        return [_describe(difference) for difference in compare_metadata(context, metadata)]

    async with Database(address, single=True, patience_s=PATIENCE_S) as database:
        return await database.read(compare)


def versions() -> list[str]:
    """List the versions that this Firebox knows, the oldest first."""
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(_config())
    return [revision.revision for revision in script.walk_revisions()][::-1]


async def _move(address: Address, command: Callable[[Config], None]) -> tuple[str, str]:
    def work(connection: Connection) -> tuple[str, str]:
        _lock(connection)
        before = _version(connection)
        if before != BASE and before not in versions():
            raise _unknown(address, before)
        config = _config()
        config.attributes["connection"] = connection
        command(config)
        return before, _version(connection)

    async with Database(address, single=True, patience_s=PATIENCE_S) as database:
        before, after = await database.write(work)
    if before != after:
        _log.info("the schema of the database has moved", before=before, after=after)
    return before, after


async def _make_tables(address: Address) -> bool:
    """Make the newest schema at once where nothing is; False where something is that the migrations have to look at.

    The usual first start: Alembic would take two thirds as much memory as all the rest of storage, as long as the server lives.
    A test holds that the migrations come to the same.
    """
    async with Database(address, single=True, patience_s=PATIENCE_S) as database:
        return await database.write(_make_tables_over)


def _make_tables_over(connection: Connection) -> bool:
    from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, String, Table, inspect

    from firebox.storage.tables import metadata

    _lock(connection)
    if _version(connection) == HEAD:
        # Another server was quicker.
        return True
    there = set(inspect(connection).get_table_names())
    if there & {*metadata.tables, VERSION_TABLE}:
        return False
    metadata.create_all(connection)
    versions_made = Table(
        VERSION_TABLE,
        MetaData(),
        Column("version_num", String(32), nullable=False),
        PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
    )
    versions_made.create(connection)
    connection.execute(versions_made.insert().values(version_num=HEAD))
    return True


def _lock(connection: Connection) -> None:
    """Wait until no other server moves the schema, until the end of the transaction. SQLite has one writer at a time anyway."""
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


def _command() -> Any:
    from alembic import command

    return command


def _unknown(address: Address, version: str) -> SettingsError:
    return SettingsError(
        "database_url",
        address.shown,
        f"a database of this Firebox or an older one; its schema is {version}, and {HEAD} is the newest known here",
        hint="start the newer Firebox again, and move the schema down with it: firebox db downgrade",
    )


def _is_ours(_object: Any, _name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
    """Leave out tables of others that live in the same database."""
    return not (type_ == "table" and reflected and compare_to is None)


def _describe(difference: list[tuple[Any, ...]] | tuple[Any, ...]) -> str:
    """Say what one entry of alembic's comparison means: a tuple, or a list of them for a column."""
    entry = difference[0] if isinstance(difference, list) else difference
    kind, *rest = entry
    names = [str(getattr(each, "name", None) or each) for each in rest if each is not None]
    return f"{kind.replace('_', ' ')}: {' '.join(names)}"[:300]
