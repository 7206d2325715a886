"""One suite for usage counters: in both databases and in Redis."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from firebox.storage.counters import Counters
from firebox.storage.database_counters import DatabaseCounters
from firebox.storage.redis_stores import RedisCounters, make_redis
from tests.conftest import ROOT
from tests.storage.places import Clock, settings_for, stores_at
from tests.support.server import environment

WHO = "user 7"


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Settings of servers that share counters."""
    place = {"database_url": f"sqlite:///{tmp_path / 'firebox.db'}"}
    if request.param == "postgresql":
        place["database_url"] = request.getfixturevalue("postgres_url")
    if request.param == "redis":
        place["redis_url"] = request.getfixturevalue("redis_url")
    return place


@pytest.fixture
def clock() -> Clock:
    """A clock in the middle of a minute and of a day: yesterday, since a server's clock may differ from that of Redis."""
    return Clock(time.time() // 86_400 * 86_400 - 43_170)


@pytest_asyncio.fixture
async def counters(place: dict[str, str], clock: Clock) -> AsyncGenerator[Counters]:
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(stores_at(**place))
        if isinstance(stores.counters, DatabaseCounters):
            yield DatabaseCounters(stores.database, clock)
        else:
            redis = make_redis(settings_for(**place))
            stack.push_async_callback(redis.aclose)
            yield RedisCounters(redis, clock)


async def test_sum_grows_with_each_use(counters: Counters) -> None:
    assert await counters.total(WHO, "runs", window_s=60) == 0
    assert await counters.add(WHO, "runs", amount=1, window_s=60) == 1
    assert await counters.add(WHO, "runs", amount=5, window_s=60) == 6
    assert await counters.add(WHO, "runs", amount=0, window_s=60) == 6
    assert await counters.total(WHO, "runs", window_s=60) == 6


async def test_subjects_names_and_windows_are_counted_apart(counters: Counters) -> None:
    await counters.add(WHO, "runs", amount=1, window_s=60)
    assert await counters.add("user 8", "runs", amount=1, window_s=60) == 1
    assert await counters.add(WHO, "cpu_ms", amount=1, window_s=60) == 1
    assert await counters.add(WHO, "runs", amount=1, window_s=86_400) == 1


async def test_next_window_begins_at_nothing(counters: Counters, clock: Clock) -> None:
    await counters.add(WHO, "runs", amount=3, window_s=60)
    await counters.add(WHO, "runs", amount=3, window_s=86_400)
    clock.now_s += 29.9
    assert await counters.total(WHO, "runs", window_s=60) == 3
    clock.now_s += 0.1
    assert await counters.total(WHO, "runs", window_s=60) == 0
    assert await counters.add(WHO, "runs", amount=1, window_s=60) == 1
    assert await counters.total(WHO, "runs", window_s=86_400) == 3


async def test_large_sums_are_exact(counters: Counters) -> None:
    assert await counters.add(WHO, "cpu_ms", amount=2**52, window_s=60) == 2**52
    assert await counters.add(WHO, "cpu_ms", amount=1, window_s=60) == 2**52 + 1


async def test_no_more_places_than_are_allowed(counters: Counters) -> None:
    assert [await counters.lease(WHO, str(number), allowed=2, ttl_s=60) for number in range(4)] == [True, True, False, False]
    assert await counters.lease("user 8", "0", allowed=1, ttl_s=60)


async def test_no_place_where_none_is_allowed(counters: Counters) -> None:
    assert not await counters.lease(WHO, "a", allowed=0, ttl_s=60)


async def test_place_given_back_is_free(counters: Counters) -> None:
    await counters.lease(WHO, "a", allowed=1, ttl_s=60)
    await counters.release(WHO, "a")
    await counters.release(WHO, "a")
    await counters.release(WHO, "never")
    assert await counters.lease(WHO, "b", allowed=1, ttl_s=60)


async def test_giving_back_frees_nobody_elses_place(counters: Counters) -> None:
    await counters.lease(WHO, "a", allowed=1, ttl_s=60)
    await counters.release("user 8", "a")
    await counters.release(WHO, "b")
    assert not await counters.lease(WHO, "b", allowed=1, ttl_s=60)


async def test_place_that_nobody_gives_back_is_free_after_its_time(counters: Counters, clock: Clock) -> None:
    await counters.lease(WHO, "a", allowed=1, ttl_s=60)
    clock.now_s += 59
    assert not await counters.lease(WHO, "b", allowed=1, ttl_s=60)
    clock.now_s += 1.1
    assert await counters.lease(WHO, "b", allowed=1, ttl_s=60)
    assert not await counters.lease(WHO, "a", allowed=1, ttl_s=60)


async def test_place_is_held_longer_by_who_has_it(counters: Counters, clock: Clock) -> None:
    await counters.lease(WHO, "a", allowed=1, ttl_s=60)
    clock.now_s += 50
    assert await counters.lease(WHO, "a", allowed=1, ttl_s=60)
    clock.now_s += 50
    assert not await counters.lease(WHO, "b", allowed=1, ttl_s=60)


async def test_nothing_that_counts_is_forgotten(counters: Counters, clock: Clock) -> None:
    await counters.add(WHO, "runs", amount=1, window_s=60)
    await counters.add(WHO, "cpu_ms", amount=1, window_s=86_400)
    await counters.lease(WHO, "a", allowed=1, ttl_s=60)
    await counters.forget(before_s=clock.now_s - 86_400 * 30, at_most=100)
    assert await counters.total(WHO, "runs", window_s=60) == 1
    assert await counters.total(WHO, "cpu_ms", window_s=86_400) == 1
    assert not await counters.lease(WHO, "b", allowed=1, ttl_s=60)


async def test_many_at_once_lose_nothing(counters: Counters) -> None:
    sums = await asyncio.gather(*(counters.add(WHO, "runs", amount=1, window_s=60) for _ in range(100)))
    assert sorted(sums) == list(range(1, 101))
    taken = await asyncio.gather(*(counters.lease(WHO, str(number), allowed=7, ttl_s=60) for number in range(50)))
    assert taken.count(True) == 7


COUNT = """
import asyncio, json, sys
from tests.storage.places import stores_at

async def main(place, name):
    async with stores_at(**place) as stores:
        print("ready", flush=True)
        sys.stdin.readline()
        counters = stores.counters
        allowed = []
        for number in range(100):
            if await counters.add("user 7", "runs", amount=1, window_s=10**9) <= 50:
                allowed.append(number)
        places = [await counters.lease("user 7", f"{name} {number}", allowed=5, ttl_s=3600) for number in range(20)]
        print(len(allowed), places.count(True), flush=True)

asyncio.run(main(json.loads(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.usefixtures("counters")
async def test_processes_that_count_at_once_never_exceed(place: dict[str, str]) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", COUNT, json.dumps(place), str(number)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment({"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}),
        )
        for number in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        answers = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    allowed, places = zip(*(map(int, answer.split()) for answer, _ in answers), strict=True)
    assert sum(allowed) == 50
    assert sum(places) == 5


async def test_usage_that_is_old_enough_is_forgotten(clock: Clock, database_url: str) -> None:
    async with stores_at(database_url) as stores:
        counters = DatabaseCounters(stores.database, clock)
        await counters.add(WHO, "runs", amount=1, window_s=60)
        await counters.add(WHO, "cpu_ms", amount=1, window_s=86_400)
        await counters.lease(WHO, "a", allowed=1, ttl_s=60)
        clock.now_s += 61
        assert await counters.forget(before_s=clock.now_s - 30 * 86_400, at_most=100) == 2, "the minute and the place"
        clock.now_s += 31 * 86_400
        assert await counters.forget(before_s=clock.now_s - 30 * 86_400, at_most=100) == 1, "the day"
        assert await counters.forget(before_s=clock.now_s, at_most=100) == 0


async def test_counts_in_redis_end_by_themselves(redis_url: str, tmp_path: Path) -> None:
    async with stores_at(f"sqlite:///{tmp_path / 'firebox.db'}", redis_url=redis_url) as stores:
        await stores.counters.add(WHO, "runs", amount=1, window_s=60)
        await stores.counters.lease(WHO, "a", allowed=1, ttl_s=90)
        redis = make_redis(settings_for("", redis_url=redis_url))
        async with redis:
            names = sorted([name async for name in redis.scan_iter("*")])
            lives = [await redis.ttl(name) for name in names]
        assert len(names) == 2
        assert 0 < lives[0] <= 150
        assert 0 < lives[1] <= 120


async def test_redis_counts_instead_of_the_database(redis_url: str, tmp_path: Path) -> None:
    async with stores_at(f"sqlite:///{tmp_path / 'firebox.db'}", redis_url=redis_url) as stores:
        await stores.counters.add(WHO, "runs", amount=1, window_s=60)
        assert await DatabaseCounters(stores.database).total(WHO, "runs", window_s=60) == 0
