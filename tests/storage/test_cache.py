"""One suite for both caches, in this process and in Redis; then the differences."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from firebox.domain.errors import PartUnavailable
from firebox.storage import redis_stores
from firebox.storage.cache import Cache, MemoryCache
from firebox.storage.redis_stores import VALUE_BYTES, RedisCache, RedisCounters, make_redis
from firebox.storage.stores import Stores
from tests.storage.places import Clock, line_to, settings_for, stores_at
from tests.support.services import RedisServer
from tests.support.waiting import until


@pytest_asyncio.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Cache]:
    redis_url = request.getfixturevalue("redis_url") if request.param == "redis" else ""
    async with stores_at(f"sqlite:///{tmp_path / 'firebox.db'}", redis_url=redis_url) as stores:
        assert isinstance(stores.cache, RedisCache if redis_url else MemoryCache)
        yield stores.cache


async def test_value_is_found_until_it_is_deleted(cache: Cache) -> None:
    assert await cache.get("snippet 1") is None
    await cache.set("snippet 1", b"\0\xff", 60)
    assert await cache.get("snippet 1") == b"\0\xff"
    assert await cache.get("snippet 2") is None
    await cache.delete("snippet 1")
    assert await cache.get("snippet 1") is None
    await cache.delete("snippet 1")


async def test_later_value_takes_the_place(cache: Cache) -> None:
    await cache.set("key", b"one", 60)
    await cache.set("key", b"", 60)
    assert await cache.get("key") == b""


async def test_value_without_time_to_live_is_not_cached(cache: Cache) -> None:
    await cache.set("key", b"one", 0)
    assert await cache.get("key") is None


@pytest.mark.parametrize("key", ["", "\0", "\ud800", "* ? [a] \r\n", "x" * 100_000])
async def test_key_may_be_anything(cache: Cache, key: str) -> None:
    await cache.set(key, b"value", 60)
    assert await cache.get(key) == b"value"
    assert await cache.get(key + "x") is None


async def test_too_large_value_is_not_cached(cache: Cache) -> None:
    await cache.set("key", b"x" * (VALUE_BYTES * 3), 60)
    assert await cache.get("key") is None


async def test_memory_forgets_what_is_too_old() -> None:
    clock = Clock(0)
    cache = MemoryCache(clock=clock)
    await cache.set("key", b"value", 10)
    clock.now_s = 9.9
    assert await cache.get("key") == b"value"
    clock.now_s = 10
    assert await cache.get("key") is None


async def test_memory_is_bounded_in_entries() -> None:
    cache = MemoryCache(entries=2)
    for key in "abc":
        await cache.set(key, b"", 60)
        await cache.get("a")
    assert [await cache.get(key) for key in "abc"] == [b"", None, b""]


async def test_memory_is_bounded_in_bytes() -> None:
    cache = MemoryCache(size_bytes=100)
    for number in range(50):
        await cache.set(str(number % 7), b"x" * (number % 40), 60)
        kept = [value for key in range(7) if (value := await cache.get(str(key))) is not None]
        assert sum(map(len, kept)) + 4 * len(kept) <= 100
    for number in range(7):
        await cache.delete(str(number))
    await cache.set("all", b"x" * 88, 60)
    assert await cache.get("all") == b"x" * 88, "what was deleted gave its room back"


async def test_value_in_redis_ends_by_itself(redis_url: str) -> None:
    async with make_redis(settings_for("", redis_url=redis_url)) as redis:
        await RedisCache(redis).set("key", b"value", 60)
        (name,) = [name async for name in redis.scan_iter("*")]
        assert 0 < await redis.ttl(name) <= 60


@pytest.fixture
def own_redis(monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    monkeypatch.setattr(redis_stores, "WAIT_S", 0.5)
    return RedisServer()


async def test_cache_without_redis_is_empty_and_logs_once_a_minute(own_redis: RedisServer) -> None:
    clock = Clock(0)
    with own_redis:
        async with make_redis(settings_for("", redis_url=own_redis.url)) as redis:
            cache = RedisCache(redis, clock)
            await cache.set("key", b"value", 600)
            own_redis.kill()
            with capture_logs() as lines:
                for _ in range(3):
                    assert await cache.get("key") is None
                    await cache.set("key", b"other", 600)
                    await cache.delete("key")
            assert [line["log_level"] for line in lines] == ["warning"]
            clock.now_s = 61
            with capture_logs() as lines:
                await cache.get("key")
                await cache.get("key")
            assert len(lines) == 1
            own_redis.start()
            await cache.set("key", b"new", 600)
            assert await cache.get("key") == b"new"


async def test_counters_report_a_redis_outage_and_recover(own_redis: RedisServer) -> None:
    with own_redis:
        async with make_redis(settings_for("", redis_url=own_redis.url)) as redis:
            counters = RedisCounters(redis)
            assert await counters.add("user 7", "runs", amount=1, window_s=60) == 1
            own_redis.kill()
            for call in (
                counters.add("user 7", "runs", amount=1, window_s=60),
                counters.total("user 7", "runs", window_s=60),
                counters.lease("user 7", "a", allowed=1, ttl_s=60),
                counters.release("user 7", "a"),
            ):
                with pytest.raises(PartUnavailable) as refused:
                    await call
                assert refused.value.part == "counters"
            own_redis.start()
            # The scripts have to be sent again to a Redis that knows none.
            assert await counters.add("user 7", "runs", amount=1, window_s=60) == 1
            assert await counters.lease("user 7", "a", allowed=1, ttl_s=60)


async def test_server_starts_without_redis(own_redis: RedisServer, tmp_path: Path) -> None:
    with own_redis:
        own_redis.kill()
        async with stores_at(f"sqlite:///{tmp_path / 'firebox.db'}", redis_url=own_redis.url) as stores:
            await share_and_fetch(stores)


async def share_and_fetch(stores: Stores) -> None:
    snippet = await stores.snippets.add(code="1", language="go", output="", error="")
    assert await stores.cache.get(str(snippet.id)) is None
    assert await stores.snippets.get(snippet.id) == snippet


async def test_hanging_redis_times_out(own_redis: RedisServer) -> None:
    with own_redis:
        async with line_to(own_redis.port) as line:
            url = own_redis.url.replace(f":{own_redis.port}/", f":{line.port}/")
            async with make_redis(settings_for("", redis_url=url)) as redis:
                cache, counters = RedisCache(redis), RedisCounters(redis)
                await cache.set("key", b"value", 600)
                line.cut()
                assert await cache.get("key") is None
                with pytest.raises(PartUnavailable):
                    await counters.total("user 7", "runs", window_s=60)
                line.mend()

                async def answers() -> bool:
                    return await cache.get("key") == b"value"

                await until(answers)


async def test_value_deleted_during_a_redis_outage_is_never_returned(own_redis: RedisServer) -> None:
    with own_redis:
        async with line_to(own_redis.port) as line:
            url = own_redis.url.replace(f":{own_redis.port}/", f":{line.port}/")
            async with make_redis(settings_for("", redis_url=url)) as redis:
                cache = RedisCache(redis)
                await cache.set("key", b"value", 600)
                await cache.set("other", b"value", 600)
                line.cut()
                await cache.delete("key")
                assert "firebox:cache:key" in own_redis.command("KEYS", "*"), "Redis never heard of it"
                line.mend()

                async def answers() -> bool:
                    assert await cache.get("key") is None
                    return await cache.get("other") == b"value"

                await until(answers)
                assert "firebox:cache:key" not in own_redis.command("KEYS", "*")
