"""Failing components: a clear error, nothing half-written, nothing hanging, and recovery once they are back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager

import grpc
import pytest

from firebox.doors.runner.proto.runner_pb2 import CodeRequest, CodeResponse, DeleteCodeRequest, IdRequest
from tests.runner.people import add_user
from tests.runner.stubs.runner_pb2_grpc import RunnerStub
from tests.runner.waiting import until_in_flight
from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer
from tests.support.server import RunningServer, running_server

pytestmark = pytest.mark.slow
"""They stop databases of their own."""

KEPT = CodeRequest(code="echo kept", language="bash")
HALFWAY = CodeRequest(code="sleep 2; echo halfway", language="bash")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that these tests may stop; each uses a database of its own."""
    with PostgresServer() as started:
        yield started


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis that these tests may stop."""
    with RedisServer() as started:
        yield started


@asynccontextmanager
async def firebox_at(*flags: str) -> AsyncGenerator[tuple[RunningServer, RunnerStub]]:
    """Start a server with these components, and a client."""
    context = running_server("--grpc-port", "0", *flags)
    server = await asyncio.to_thread(context.__enter__)
    try:
        async with grpc.aio.insecure_channel(server.ready["grpc"]) as channel:
            yield server, RunnerStub(channel)
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


@pytest.fixture
async def on_postgres(postgres: PostgresServer) -> AsyncIterator[tuple[RunningServer, RunnerStub, str]]:
    """A server on a new database of `postgres`."""
    with postgres.database() as url:
        async with firebox_at("--database-url", url) as (server, runner):
            yield server, runner, url
        postgres.start()


def kill(postgres: PostgresServer) -> None:
    """Kill it after everything committed is on disk: for speed these servers write their log a little later."""
    postgres.sql("CHECKPOINT")
    postgres.kill()


def rows(postgres: PostgresServer, url: str) -> list[str]:
    """Id and code of shared snippets, one line each."""
    name = url.rpartition("/")[2]
    return postgres.sql("SELECT id, code FROM shared_codes ORDER BY id", name).splitlines()


async def status_of(call: Awaitable[object]) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_postgres_serves_like_sqlite(on_postgres: tuple[RunningServer, RunnerStub, str], postgres: PostgresServer) -> None:
    _, runner, url = on_postgres
    admin = await add_user(url, "ada", "token", "admin")
    first, second = [(await runner.ShareCode(KEPT)).id for _ in range(2)]
    assert second > first > 0
    assert await runner.GetCodeByID(IdRequest(id=first)) == CodeResponse(code=KEPT.code, output="kept\n")
    for number in (0, -1, 2**31, 2**40, 2**63 - 1, -(2**63)):
        assert await status_of(runner.GetCodeByID(IdRequest(id=number))) is grpc.StatusCode.NOT_FOUND
        assert await status_of(runner.DeleteCode(DeleteCodeRequest(id=first, user_id=number))) is grpc.StatusCode.CANCELLED
        request = DeleteCodeRequest(id=number, user_id=admin)
        assert await status_of(runner.DeleteCode(request)) is grpc.StatusCode.NOT_FOUND
    text = "printf 'grüße 🦀\\0'"
    odd = (await runner.ShareCode(CodeRequest(code=text, language="bash"))).id
    assert (await runner.GetCodeByID(IdRequest(id=odd))).output == "grüße 🦀\ufffd"
    assert (await runner.DeleteCode(DeleteCodeRequest(id=first, user_id=admin))).success
    assert await status_of(runner.GetCodeByID(IdRequest(id=first))) is grpc.StatusCode.NOT_FOUND
    assert [row.partition("|")[0] for row in rows(postgres, url)] == [str(second), str(odd)]


async def test_postgres_restarted_in_the_middle_of_a_share(
    on_postgres: tuple[RunningServer, RunnerStub, str], postgres: PostgresServer
) -> None:
    server, runner, url = on_postgres
    await runner.ShareCode(KEPT)
    sharing = asyncio.ensure_future(_share(runner, HALFWAY))
    await until_in_flight(server, 1)
    await asyncio.to_thread(kill, postgres)
    await asyncio.to_thread(postgres.start)
    number = await sharing
    assert (await runner.GetCodeByID(IdRequest(id=number))).output == "halfway\n"
    assert len(rows(postgres, url)) == 2


async def test_postgres_gone_in_the_middle_of_a_share_keeps_nothing(
    on_postgres: tuple[RunningServer, RunnerStub, str], postgres: PostgresServer
) -> None:
    server, runner, url = on_postgres
    before = (await runner.ShareCode(KEPT)).id
    sharing = asyncio.ensure_future(status_of(runner.ShareCode(HALFWAY)))
    await until_in_flight(server, 1)
    await asyncio.to_thread(kill, postgres)
    assert await sharing is grpc.StatusCode.UNAVAILABLE
    # What needs no database goes on.
    assert (await runner.RunCode(KEPT)).output == "kept\n"
    assert await status_of(runner.GetCodeByID(IdRequest(id=before + 100))) is grpc.StatusCode.UNAVAILABLE
    assert await status_of(runner.DeleteCode(DeleteCodeRequest(id=before, user_id=1))) is grpc.StatusCode.UNAVAILABLE
    await asyncio.to_thread(postgres.start)
    assert rows(postgres, url) == [f"{before}|echo kept"]
    assert (await runner.ShareCode(KEPT)).id > before
    assert (await runner.GetCodeByID(IdRequest(id=before))).output == "kept\n"


async def _share(runner: RunnerStub, request: CodeRequest) -> int:
    return (await runner.ShareCode(request)).id


async def test_redis_is_queried_before_the_database(
    on_postgres: tuple[RunningServer, RunnerStub, str], postgres: PostgresServer, redis: RedisServer
) -> None:
    _, _, url = on_postgres
    with redis.database() as redis_url:
        async with firebox_at("--database-url", url, "--redis-url", redis_url) as (_, runner):
            number = await _share(runner, KEPT)
            assert (await runner.GetCodeByID(IdRequest(id=number))).output == "kept\n"
            await asyncio.to_thread(postgres.stop)
            assert (await runner.GetCodeByID(IdRequest(id=number))).output == "kept\n"
            await asyncio.to_thread(postgres.start)


async def test_what_one_server_deletes_another_has_forgotten(
    on_postgres: tuple[RunningServer, RunnerStub, str], redis: RedisServer
) -> None:
    _, _, url = on_postgres
    admin = await add_user(url, "ada", "token", "admin")
    with redis.database() as redis_url:
        parts = ("--database-url", url, "--redis-url", redis_url)
        async with firebox_at(*parts) as (_, one), firebox_at(*parts) as (_, other):
            number = await _share(one, KEPT)
            assert (await other.GetCodeByID(IdRequest(id=number))).output == "kept\n"
            assert (await one.DeleteCode(DeleteCodeRequest(id=number, user_id=admin))).success
            assert await status_of(other.GetCodeByID(IdRequest(id=number))) is grpc.StatusCode.NOT_FOUND


async def test_without_redis_answers_come_from_the_database(
    on_postgres: tuple[RunningServer, RunnerStub, str], redis: RedisServer
) -> None:
    _, _, url = on_postgres
    admin = await add_user(url, "ada", "token", "admin")
    with redis.database() as redis_url:
        async with firebox_at("--database-url", url, "--redis-url", redis_url) as (_, runner):
            number = await _share(runner, KEPT)
            assert (await runner.GetCodeByID(IdRequest(id=number))).output == "kept\n"
            await asyncio.to_thread(redis.kill)
            try:
                assert (await runner.GetCodeByID(IdRequest(id=number))).output == "kept\n"
                later = await _share(runner, KEPT)
                assert (await runner.GetCodeByID(IdRequest(id=later))).output == "kept\n"
                assert (await runner.DeleteCode(DeleteCodeRequest(id=number, user_id=admin))).success
                assert await status_of(runner.GetCodeByID(IdRequest(id=number))) is grpc.StatusCode.NOT_FOUND
            finally:
                await asyncio.to_thread(redis.start)
            assert (await runner.GetCodeByID(IdRequest(id=later))).output == "kept\n"


async def test_what_another_program_left_in_the_cache_is_passed_over(
    on_postgres: tuple[RunningServer, RunnerStub, str], redis: RedisServer
) -> None:
    _, _, url = on_postgres
    with redis.database() as redis_url:
        async with firebox_at("--database-url", url, "--redis-url", redis_url) as (_, runner):
            number = await _share(runner, KEPT)
            assert (await runner.GetCodeByID(IdRequest(id=number))).output == "kept\n"
            database = int(redis_url.rpartition("/")[2])
            keys = redis.command("KEYS", "*", database=database).splitlines()
            key = next(key for key in keys if key.endswith(f"snippet:{number}"))
            assert 1190 <= int(redis.command("TTL", key, database=database)) <= 1200
            redis.command("SET", key, "{broken", database=database)
            assert (await runner.GetCodeByID(IdRequest(id=number))).output == "kept\n"
