"""An unavailable, slow, full or locked database: a clear error, nothing half-written, and recovery."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select
from structlog.testing import capture_logs

from firebox.domain.errors import FireboxError, PartUnavailable, SettingsError
from firebox.storage import database_errors, postgresql, sqlite
from firebox.storage.database import Database
from firebox.storage.database_address import Address
from firebox.storage.log_throttle import LogThrottle
from firebox.storage.record_stores import SnippetTable
from firebox.storage.records import Quota
from firebox.storage.schema import upgrade
from firebox.storage.stores import Stores
from firebox.storage.tables import snippets
from tests.storage.places import line_to, ping, stores_at
from tests.support.services import PostgresServer
from tests.support.waiting import until

TOKEN = "a-token-that-is-long-enough-0001"
ROW = {"code": "x", "language": "go", "output": "", "error": ""}


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresServer]:
    """A PostgreSQL that this test may kill."""
    monkeypatch.setattr(postgresql, "CONNECT_S", 2.0)
    monkeypatch.setattr(database_errors, "_throttle", LogThrottle(database_errors.LOG_EVERY_S))
    with PostgresServer() as server:
        yield server


async def kill(postgres: PostgresServer) -> None:
    """Kill it after it has written committed data to disk: this one does not do so at once."""
    await asyncio.to_thread(postgres.sql, "CHECKPOINT")
    postgres.kill()


async def count(stores: Stores) -> int:
    question = select(func.count()).select_from(snippets)
    return await stores.database.read(lambda connection: connection.execute(question).scalar_one())


async def every_use_case(stores: Stores) -> list[str]:
    """Call everything. Return what failed and how."""
    told: list[str] = []
    for call in (
        ping(stores),
        stores.users.add(name="ada", token=TOKEN),
        stores.users.all(),
        stores.users.get(1),
        stores.users.by_uuid("x"),
        stores.users.by_name("x"),
        stores.users.by_token("x"),
        stores.users.set_token(1, "x"),
        stores.users.set_disabled(1, disabled=True),
        stores.users.set_quota(1, Quota(runs_per_minute=1)),
        stores.users.remove(1),
        stores.languages.all(),
        stores.languages.get("x"),
        stores.languages.find("x", "y"),
        stores.languages.put("x", "y", image="z"),
        stores.languages.remove("x"),
        stores.snippets.add(**ROW),
        stores.snippets.get(1),
        stores.snippets.remove(1),
        stores.counters.add("x", "runs", amount=1, window_s=60),
        stores.counters.total("x", "runs", window_s=60),
        stores.counters.lease("x", "a", allowed=1, ttl_s=60),
        stores.counters.release("x", "a"),
        stores.counters.forget(before_s=0, at_most=1),
    ):
        with pytest.raises(FireboxError) as refused:
            await call
        assert isinstance(refused.value, PartUnavailable), refused.value
        assert refused.value.part == "database"
        told.append(refused.value.message)
    return told


@pytest.mark.slow
async def test_every_use_case_reports_a_postgresql_outage_and_recovers(postgres: PostgresServer) -> None:
    async with stores_at(postgres.url) as stores:
        await stores.snippets.add(**ROW)
        await kill(postgres)
        with capture_logs() as lines:
            told = await every_use_case(stores)
        assert all(postgres.facts["password"] not in line for line in told)
        assert len(lines) == 1, "one line, not one a request"
        postgres.start()
        await ping(stores)
        assert (await stores.snippets.add(**ROW)).id >= 2


@pytest.mark.slow
async def test_restart_between_two_use_cases_is_not_noticed(postgres: PostgresServer) -> None:
    async with stores_at(postgres.url) as stores:
        # Several connections, all of them dead after the restart.
        await asyncio.gather(*(stores.snippets.add(**ROW) for _ in range(8)))
        postgres.restart()
        assert len(await asyncio.gather(*(stores.snippets.add(**ROW) for _ in range(8)))) == 8
        assert await count(stores) == 16


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_nothing_is_half_written_when_postgresql_ends_in_the_middle(postgres: PostgresServer, how: str) -> None:
    async with stores_at(postgres.url) as stores:
        postgres.sql("CHECKPOINT")

        def share_twice(connection: Connection) -> None:
            connection.execute(insert(snippets).values(ROW))
            getattr(postgres, how)()
            connection.execute(insert(snippets).values(ROW))

        with pytest.raises(PartUnavailable):
            await stores.database.write(share_twice)
        postgres.start()
        assert await count(stores) == 0


@pytest.mark.slow
async def test_use_case_is_done_once_when_postgresql_restarts_in_the_middle(postgres: PostgresServer) -> None:
    async with stores_at(postgres.url) as stores:
        restarts = iter([True])

        def share_twice(connection: Connection) -> None:
            connection.execute(insert(snippets).values(ROW))
            if next(restarts, False):
                postgres.restart()
            connection.execute(insert(snippets).values(ROW))

        await stores.database.write(share_twice)
        assert await count(stores) == 2


@pytest.mark.slow
async def test_commit_that_fails_is_not_done_again(postgres: PostgresServer) -> None:
    async with stores_at(postgres.url) as stores:
        calls: list[int] = []

        def share(connection: Connection) -> None:
            calls.append(1)
            connection.execute(insert(snippets).values(ROW))
            postgres.restart()

        with pytest.raises(PartUnavailable):
            await stores.database.write(share)
        assert len(calls) == 1
        assert await count(stores) == 0


@pytest.mark.slow
async def test_shares_go_on_around_a_restart_of_postgresql(postgres: PostgresServer) -> None:
    async with stores_at(postgres.url) as stores:
        shared: list[int] = []
        refused: list[FireboxError] = []
        restarted = asyncio.Event()

        async def share() -> None:
            while not restarted.is_set():
                try:
                    shared.append((await stores.snippets.add(**ROW)).id)
                except PartUnavailable as error:
                    refused.append(error)
                await asyncio.sleep(0.01)

        async def restart() -> None:
            await until(several)
            await asyncio.to_thread(postgres.restart)
            before = len(shared)

            async def more() -> bool:
                return len(shared) > before + 5

            await until(more)
            restarted.set()

        async def several() -> bool:
            return len(shared) > 5

        await asyncio.wait_for(asyncio.gather(restart(), *(share() for _ in range(4))), 120)
        assert len(set(shared)) == len(shared)
        for number in shared:
            assert (await stores.snippets.get(number)).code == "x"
        # An interrupted commit may have worked: then its number was never reported.
        assert len(shared) <= await count(stores) <= len(shared) + len(refused)


@pytest.mark.slow
async def test_server_does_not_start_without_its_database(postgres: PostgresServer) -> None:
    postgres.kill()
    with pytest.raises(PartUnavailable):
        async with stores_at(postgres.url):
            pytest.fail("it started")


@pytest.mark.parametrize(("wrong", "detail"), [("password", "authentication failed"), ("database", "database does not exist")])
async def test_wrong_login_is_named(postgres_url: str, wrong: str, detail: str) -> None:
    head, _, name = postgres_url.rpartition("/")
    secret = head.split(":")[2].split("@")[0]
    url = postgres_url.replace(secret, "wrong") if wrong == "password" else f"{head}/absent"
    with pytest.raises(PartUnavailable, match=detail) as refused:
        async with stores_at(url):
            pytest.fail("it started")
    assert secret not in refused.value.message
    assert name not in refused.value.message


@pytest.mark.slow
async def test_an_unresponsive_postgresql_times_out(postgres: PostgresServer) -> None:
    async with line_to(postgres.port) as line, AsyncExitStack() as stack:
        address = Address("postgresql", "shown", url=postgres.url.replace(f":{postgres.port}/", f":{line.port}/"))
        await upgrade(address)
        database = await stack.enter_async_context(Database(address, patience_s=1.0))
        table = SnippetTable(database)
        await table.add(**ROW)
        line.cut()
        for _ in range(2):
            with pytest.raises(PartUnavailable, match="timeout"):
                await table.add(**ROW)
        line.mend()

        async def works() -> bool:
            try:
                return (await table.add(**ROW)).code == "x"
            except PartUnavailable:
                return False

        await until(works)


async def test_slow_statement_times_out(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "STATEMENT_S", 0.3)
    async with stores_at(postgres_url) as stores:
        with pytest.raises(PartUnavailable, match="timeout"):
            await stores.database.read(lambda connection: connection.exec_driver_sql("SELECT pg_sleep(60)"))
        await ping(stores)


async def test_caller_who_leaves_takes_no_connection_along(postgres_url: str) -> None:
    async with stores_at(postgres_url) as stores:
        for _ in range(postgresql.CONNECTIONS + 2):
            task = asyncio.create_task(stores.database.read(lambda connection: connection.exec_driver_sql("SELECT pg_sleep(60)")))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await ping(stores)


@asynccontextmanager
async def sqlite_stores(folder: Path) -> AsyncGenerator[tuple[Stores, Path]]:
    path = folder / "firebox.db"
    async with stores_at(f"sqlite:///{path}") as stores:
        yield stores, path


async def test_lock_timeout_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_S", 0.2)
    async with sqlite_stores(tmp_path) as (stores, path):
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(PartUnavailable, match="lock timeout"):
                await stores.snippets.add(**ROW)
            assert await count(stores) == 0, "reading goes on"
            other.execute("ROLLBACK")
            await stores.snippets.add(**ROW)
        assert await count(stores) == 1


async def test_other_writer_is_waited_for(tmp_path: Path) -> None:
    async with sqlite_stores(tmp_path) as (stores, path):
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            task = asyncio.create_task(stores.snippets.add(**ROW))
            await asyncio.sleep(0)
            other.execute("COMMIT")
            assert (await task).id == 1


async def test_nothing_is_half_written_in_sqlite(tmp_path: Path) -> None:
    async with sqlite_stores(tmp_path) as (stores, _):

        def share_and_fail(connection: Connection) -> None:
            connection.execute(insert(snippets).values(ROW))
            raise LookupError("in the middle")

        with pytest.raises(LookupError):
            await stores.database.write(share_and_fail)
        assert await count(stores) == 0
        await stores.snippets.add(**ROW)


async def test_full_disk_is_named(tmp_path: Path) -> None:
    async with sqlite_stores(tmp_path) as (stores, _):

        def allow_no_more(connection: Connection) -> None:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        await stores.database.write(allow_no_more)
        with pytest.raises(PartUnavailable, match="disk full"):
            await stores.snippets.add(**{**ROW, "code": "x" * 100_000})
        assert await count(stores) == 0


async def test_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "firebox.db"
    path.write_bytes(b"letters, by no means a database" * 100)
    before = path.read_bytes()
    with pytest.raises(PartUnavailable, match="not a database"):
        async with sqlite_stores(tmp_path):
            pytest.fail("it started")
    assert path.read_bytes() == before


async def test_place_that_cannot_be_written_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "firebox.db", tmp_path):
        with pytest.raises(SettingsError) as refused:
            async with stores_at(f"sqlite:///{path}"):
                pytest.fail("it started")
        assert refused.value.setting == "database_url"


async def test_database_file_is_private(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        async with stores_at(f"sqlite:///{tmp_path / 'made' / 'for us' / 'firebox.db'}") as stores:
            await stores.snippets.add(**ROW)
            files = list((tmp_path / "made" / "for us").iterdir())
            assert {file.name for file in files} == {"firebox.db", "firebox.db-wal", "firebox.db-shm"}
            assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    finally:
        os.umask(mask)


CLOSE_LAST = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as connection:
    connection.execute("SELECT count(*) FROM shared_codes").fetchone()
connection.close()
"""


async def test_database_opened_twice_and_by_others_loses_nothing(tmp_path: Path) -> None:
    async with sqlite_stores(tmp_path) as (stores, path):
        await stores.snippets.add(**ROW)
        async with sqlite_stores(tmp_path) as (second, _):
            await second.snippets.add(**ROW)
        # Another program that takes itself for the last one removes the write-ahead log.
        subprocess.run([sys.executable, "-c", CLOSE_LAST, str(path)], check=True)
        await stores.snippets.add(**ROW)
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT count(*) FROM shared_codes").fetchone() == (3,)
    async with sqlite_stores(tmp_path) as (stores, _):
        assert await count(stores) == 3


async def test_database_that_others_can_read_is_mentioned(tmp_path: Path) -> None:
    path = tmp_path / "firebox.db"
    path.touch()
    path.chmod(0o644)
    with capture_logs() as lines:
        async with sqlite_stores(tmp_path):
            pass
    assert "the database is readable by others" in [line["event"] for line in lines]


async def test_table_that_is_missing_is_explained(stores: Stores) -> None:
    await stores.database.write(lambda connection: connection.exec_driver_sql("DROP TABLE shared_codes"))
    with pytest.raises(PartUnavailable, match="table missing") as refused:
        await stores.snippets.get(1)
    assert "firebox db" in refused.value.hint


async def test_mistake_of_ours_is_not_blamed_on_the_database(stores: Stores) -> None:
    def mistake(_: Connection) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await stores.database.read(mistake)


async def test_neither_code_nor_output_is_in_the_log(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_errors, "_throttle", LogThrottle(database_errors.LOG_EVERY_S))
    await stores.database.write(lambda connection: connection.exec_driver_sql("DROP TABLE shared_codes"))
    with capture_logs() as lines, pytest.raises(PartUnavailable) as refused:
        await stores.snippets.add(code="secret code", language="go", output="secret output", error="")
    assert len(lines) == 1
    assert "secret" not in str(lines) + refused.value.message
