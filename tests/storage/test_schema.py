"""Upgrades and downgrades of the schema on both databases, and taking over Runner's."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from sqlalchemy import inspect
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from firebox.domain.errors import NotFound, SettingsError
from firebox.storage import schema, sqlite_file
from firebox.storage.database import Database
from firebox.storage.database_address import Address, read_address
from firebox.storage.schema import BASE, HEAD, VERSION_TABLE
from firebox.storage.tables import metadata
from tests.conftest import ROOT
from tests.storage.places import execute, settings_for, stores_at
from tests.support.postgres import postgres_program
from tests.support.server import environment

RUNNER_TABLE = {
    "postgresql": """CREATE TABLE shared_codes (
        id serial primary key, code text not null, output text, error text, created_at timestamp default now())""",
    "sqlite": """CREATE TABLE shared_codes (
        id integer primary key, code text not null, output text, error text, created_at timestamp default current_timestamp)""",
}


@pytest.fixture
def address(database_url: str) -> Address:
    return read_address(settings_for(database_url))


async def tables(address: Address) -> set[str]:
    async with Database(address, single=True) as database:
        return set(await database.read(lambda connection: inspect(connection).get_table_names()))


def test_newest_version_is_the_last_migrations() -> None:
    assert schema.versions()[-1] == HEAD


async def test_up_makes_every_table_and_down_leaves_nothing(address: Address) -> None:
    assert await schema.upgrade(address) == (BASE, HEAD)
    assert await tables(address) == {*metadata.tables, VERSION_TABLE}
    assert await schema.upgrade(address) == (HEAD, HEAD)
    assert await schema.downgrade(address, BASE) == (HEAD, BASE)
    assert await tables(address) == {VERSION_TABLE}
    assert await schema.upgrade(address) == (BASE, HEAD)


async def test_every_migration_can_be_undone_and_repeated(address: Address) -> None:
    steps = [BASE, *schema.versions()]
    await schema.upgrade(address)
    for lower, upper in reversed(list(pairwise(steps))):
        assert await schema.downgrade(address, lower) == (upper, lower)
        assert await schema.upgrade(address, upper) == (lower, upper)
        await schema.downgrade(address, lower)


async def test_migrations_make_what_the_code_expects(address: Address) -> None:
    await schema.upgrade(address)
    assert await schema.differences(address) == []


async def test_first_start_makes_what_the_migrations_make(
    address: Address, database_url: str, request: pytest.FixtureRequest
) -> None:
    await schema.upgrade(address)
    by_migrations = described(address, request)
    await schema.downgrade(address, BASE)
    await execute(address, f"DROP TABLE {VERSION_TABLE}")
    async with stores_at(database_url):
        pass
    assert described(address, request) == by_migrations
    assert await schema.upgrade(address) == (HEAD, HEAD)
    assert await schema.downgrade(address, BASE) == (HEAD, BASE)


def test_tables_of_sqlite_are_those_of_the_code() -> None:
    dialect = sqlite.dialect()
    statements: list[str] = []
    for table in metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        statements += [str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes]
    written = [" ".join(statement.split()) for statement in sqlite_file.TABLES.read_text().strip().rstrip(";").split(";\n")]
    assert written[:-1] == [" ".join(statement.split()) for statement in statements]
    assert written[-1].startswith(f"CREATE TABLE {VERSION_TABLE} ")


def described(address: Address, request: pytest.FixtureRequest) -> list[str]:
    """The whole schema, as dumped by the database's own tool, line by line."""
    if address.path is not None:
        with closing(sqlite3.connect(address.path)) as connection:
            lines = "\n".join(sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
    else:
        server = request.getfixturevalue("postgres_server")
        lines = subprocess.run(
            [postgres_program("pg_dump"), "--schema-only"],
            env={**os.environ, **server.psql_environment(address.url.rpartition("/")[2])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    # The order of constraints in a table means nothing; newer versions of pg_dump write a random key.
    return sorted(line.strip().rstrip(",") for line in lines.splitlines() if not line.startswith("\\"))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("DROP TABLE firebox_leases", "add table: firebox_leases"),
        ("ALTER TABLE firebox_users ADD COLUMN shoe_size integer", "remove column: firebox_users shoe_size"),
        ("ALTER TABLE firebox_users DROP COLUMN cpu_seconds_per_day", "add column: firebox_users cpu_seconds_per_day"),
        ("DROP INDEX ix_shared_codes_created_at", "add index: ix_shared_codes_created_at"),
    ],
)
async def test_modified_tables_are_found(address: Address, change: str, word: str) -> None:
    await schema.upgrade(address)
    await execute(address, change)
    assert word in await schema.differences(address)


async def test_tables_of_others_are_left_alone(address: Address) -> None:
    await execute(address, "CREATE TABLE users (id integer primary key, name text)", "INSERT INTO users VALUES (1, 'theirs')")
    await schema.upgrade(address)
    assert await schema.differences(address) == []
    await schema.downgrade(address, BASE)
    assert await execute(address, "SELECT * FROM users") == [(1, "theirs")]


async def make_runners_table(address: Address) -> None:
    await execute(
        address,
        RUNNER_TABLE[address.kind],
        "INSERT INTO shared_codes (code, output, error) VALUES ('one', 'out', '')",
        "INSERT INTO shared_codes (code, output, error) VALUES ('gone', '', '')",
        "INSERT INTO shared_codes (code, created_at) VALUES ('three', '2001-02-03 04:05:06.789')",
        "INSERT INTO shared_codes (code, created_at) VALUES ('four', NULL)",
        "DELETE FROM shared_codes WHERE code = 'gone'",
    )


async def test_snippets_of_runner_are_taken_over(address: Address, database_url: str) -> None:
    await make_runners_table(address)
    async with stores_at(database_url) as stores:
        one, three, four = [await stores.snippets.get(number) for number in (1, 3, 4)]
        assert (one.code, one.output, one.error, one.language) == ("one", "out", "", "go")
        assert (three.output, three.error) == ("", "")
        assert three.created_at == datetime(2001, 2, 3, 4, 5, 6, 789_000, UTC)
        assert four.created_at.tzinfo is UTC
        with pytest.raises(NotFound):
            await stores.snippets.get(2)
        assert (await stores.snippets.add(code="five", language="python", output="", error="")).id == 5
    assert await schema.differences(address) == []


async def test_runner_can_still_use_the_converted_table(address: Address, database_url: str) -> None:
    await make_runners_table(address)
    async with stores_at(database_url) as stores:
        await stores.snippets.add(code="ours", language="python", output="", error="")
        await execute(address, "INSERT INTO shared_codes (code, output, error) VALUES ('theirs', 'o', 'e')")
        theirs = await stores.snippets.get(6)
        assert (theirs.code, theirs.output, theirs.error, theirs.language) == ("theirs", "o", "e", "go")
        assert theirs.created_at.tzinfo is UTC


async def test_runner_gets_its_table_back(address: Address, database_url: str) -> None:
    await make_runners_table(address)
    async with stores_at(database_url) as stores:
        await stores.snippets.add(code="five", language="python", output="", error="")
    await schema.downgrade(address, BASE)
    assert await tables(address) == {"shared_codes", VERSION_TABLE}
    assert await execute(address, "SELECT id, code FROM shared_codes ORDER BY id") == [
        (1, "one"),
        (3, "three"),
        (4, "four"),
        (5, "five"),
    ]
    async with Database(address, single=True) as database:
        columns = await database.read(lambda connection: inspect(connection).get_columns("shared_codes"))
    assert [column["name"] for column in columns] == ["id", "code", "output", "error", "created_at"]
    await execute(address, "INSERT INTO shared_codes (code) VALUES ('six')")
    assert await execute(address, "SELECT id FROM shared_codes WHERE code = 'six'") == [(6,)]
    await schema.upgrade(address)
    assert await schema.differences(address) == []


async def test_ids_of_what_was_taken_over_go_beyond_32_bits(address: Address, database_url: str) -> None:
    await make_runners_table(address)
    await schema.upgrade(address)
    if address.kind == "postgresql":
        await execute(address, "SELECT setval(pg_get_serial_sequence('shared_codes', 'id'), 2147483647)")
    else:
        await execute(address, "UPDATE sqlite_sequence SET seq = 2147483647 WHERE name = 'shared_codes'")
    async with stores_at(database_url) as stores:
        snippet = await stores.snippets.add(code="x", language="go", output="", error="")
        assert snippet.id == 2**31
        assert await stores.snippets.get(2**31) == snippet


@pytest.mark.parametrize(
    "columns", ["id integer primary key", "id integer, code text, output text, error text, created_at text, language text"]
)
async def test_foreign_table_of_that_name_is_not_touched(address: Address, columns: str) -> None:
    await execute(address, f"CREATE TABLE shared_codes ({columns})")
    with pytest.raises(SettingsError, match="shared_codes"):
        await schema.upgrade(address)
    assert await tables(address) <= {"shared_codes", VERSION_TABLE}, "nothing is half done"


async def test_upgrade_that_fails_leaves_nothing(address: Address) -> None:
    # The last table that the migration makes is in the way.
    await execute(address, "CREATE TABLE firebox_leases (x integer)")
    with pytest.raises(Exception, match="already exists"):
        await schema.upgrade(address)
    assert await tables(address) == {"firebox_leases"}


async def test_schema_of_a_newer_firebox_is_refused(address: Address, database_url: str) -> None:
    await schema.upgrade(address)
    await execute(address, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(SettingsError, match="9999"):
        async with stores_at(database_url):
            pytest.fail("it started")
    for move in (schema.upgrade(address), schema.downgrade(address, BASE)):
        with pytest.raises(SettingsError, match="9999"):
            await move


async def test_server_that_may_not_upgrade_has_a_hint(address: Address, database_url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        async with stores_at(database_url, database_upgrade=False):
            pytest.fail("it started")
    assert "firebox db upgrade" in refused.value.hint
    await schema.upgrade(address)
    async with stores_at(database_url, database_upgrade=False) as stores:
        assert await stores.users.all() == []


START = """
import asyncio, sys
from tests.storage.places import stores_at

async def main(url):
    print("ready", flush=True)
    sys.stdin.readline()
    async with stores_at(url) as stores:
        await stores.snippets.add(code="1", language="go", output="", error="")

asyncio.run(main(sys.argv[1]))
"""


async def test_servers_that_start_at_once_make_the_tables_once(address: Address, database_url: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", START, database_url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment({"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}),
        )
        for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        said = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert await schema.differences(address) == []
    assert await execute(address, "SELECT count(*) FROM shared_codes") == [(3,)]
    assert await execute(address, f"SELECT count(*) FROM {VERSION_TABLE}") == [(1,)]
