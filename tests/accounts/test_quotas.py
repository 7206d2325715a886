"""Quotas per client, counted in a real database by two instances, as on two servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firebox.domain.errors import PartUnavailable, RateLimited
from firebox.service.callers import Caller
from firebox.service.quotas import DAY_S, MINUTE_S, Charge, Quotas
from firebox.settings.settings import load_settings
from firebox.storage.counters import Counters
from firebox.storage.records import Quota
from firebox.storage.stores import Stores, open_stores
from tests.support.services import RedisServer

ADDRESS = Caller(address="192.0.2.1")


def quotas(counters: Counters, **settings: str) -> Quotas:
    return Quotas(lambda: counters, load_settings({"data_dir": "/nowhere", **settings}, environ={}))


def user(**numbers: int | None) -> Caller:
    return Caller(user_id=1, quota=Quota(**numbers))


@asynccontextmanager
async def charged(server: Quotas, caller: Caller) -> AsyncGenerator[Charge]:
    """A run of a client with limits."""
    charge = await server.take(caller)
    assert charge is not None
    async with server.held(charge):
        yield charge


class Untouchable:
    """Counters that must not be used."""

    async def add(self, subject: str, name: str, amount: int, window_s: int) -> int:
        raise AssertionError

    async def total(self, subject: str, name: str, window_s: int) -> int:
        raise AssertionError

    async def lease(self, subject: str, lease_id: str, allowed: int, ttl_s: int) -> bool:
        raise AssertionError

    async def release(self, subject: str, lease_id: str) -> None:
        raise AssertionError

    async def forget(self, before_s: float, at_most: int) -> int:
        raise AssertionError


async def test_without_limits_counters_are_not_used() -> None:
    unlimited = quotas(Untouchable())
    limited = quotas(Untouchable(), user_runs_per_minute="1", anonymous_concurrent_runs="1")
    for which, caller in (
        (unlimited, ADDRESS),
        (unlimited, user()),
        (limited, Caller(role="admin", address="192.0.2.1")),  # the operator
        (limited, user(runs_per_minute=0)),
    ):
        assert await which.take(caller) is None


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        (ADDRESS, Quota(runs_per_minute=10, concurrent_runs=20, cpu_seconds_per_day=30)),
        (user(), Quota(runs_per_minute=1, concurrent_runs=2, cpu_seconds_per_day=3)),
        (user(runs_per_minute=7), Quota(runs_per_minute=7, concurrent_runs=2, cpu_seconds_per_day=3)),
        (user(concurrent_runs=0, cpu_seconds_per_day=9), Quota(runs_per_minute=1, concurrent_runs=0, cpu_seconds_per_day=9)),
        (Caller(user_id=2, role="admin"), Quota(runs_per_minute=1, concurrent_runs=2, cpu_seconds_per_day=3)),
        (Caller(role="admin"), Quota(runs_per_minute=0, concurrent_runs=0, cpu_seconds_per_day=0)),
    ],
)
async def test_whose_number_counts(stores: Stores, caller: Caller, expected: Quota) -> None:
    numbers = {
        "user_runs_per_minute": "1",
        "user_concurrent_runs": "2",
        "user_cpu_seconds_per_day": "3",
        "anonymous_runs_per_minute": "10",
        "anonymous_concurrent_runs": "20",
        "anonymous_cpu_seconds_per_day": "30",
    }
    assert quotas(stores.counters, **numbers).of(caller) == expected


async def test_runs_at_once_hold_for_all_servers_together(stores: Stores) -> None:
    servers = [quotas(stores.counters, anonymous_concurrent_runs="3") for _ in range(2)]
    taken = await asyncio.gather(*(servers[number % 2].take(ADDRESS) for number in range(20)), return_exceptions=True)
    charges = [each for each in taken if isinstance(each, Charge)]
    refusals = [each for each in taken if isinstance(each, RateLimited)]
    assert (len(charges), len(refusals)) == (3, 17)
    assert {(each.limit, each.allowed) for each in refusals} == {("concurrent_runs", 3)}
    for charge in charges:
        async with servers[0].held(charge):
            pass
    assert await servers[1].take(ADDRESS) is not None


async def test_a_lease_is_released_however_the_run_ends(stores: Stores) -> None:
    server = quotas(stores.counters, anonymous_concurrent_runs="1")
    with pytest.raises(ZeroDivisionError):
        async with charged(server, ADDRESS):
            raise ZeroDivisionError

    entered = asyncio.Event()

    async def run() -> None:
        async with charged(server, ADDRESS):
            entered.set()
            await asyncio.Event().wait()

    for _ in range(5):
        entered.clear()
        task = asyncio.create_task(run())
        await entered.wait()
        with pytest.raises(RateLimited):
            await server.take(ADDRESS)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
    await server.close()
    assert await server.take(ADDRESS) is not None


async def test_a_client_that_disconnects_during_the_query_takes_no_lease(stores: Stores) -> None:
    server = quotas(stores.counters, anonymous_concurrent_runs="1", anonymous_runs_per_minute="1000")
    for pauses in range(20):
        task = asyncio.create_task(server.take(ADDRESS))
        for _ in range(pauses):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            charge = task.result()
            assert charge is not None
            async with server.held(charge):
                pass
    await server.close()
    assert await server.take(ADDRESS) is not None


async def test_a_refusal_by_one_limit_leaves_nothing_of_another_taken(stores: Stores) -> None:
    server = quotas(stores.counters)
    limited = user(runs_per_minute=1, concurrent_runs=1)
    refused_by: list[str] = []
    for _ in range(3):  # once more than needed: a minute may end in between
        try:
            async with charged(server, limited):
                pass
        except RateLimited as refusal:
            refused_by.append(refusal.limit)
    assert set(refused_by) == {"runs_per_minute"}
    assert await server.take(user(concurrent_runs=1)) is not None


async def test_runs_per_minute_are_limited_with_a_retry_after(stores: Stores) -> None:
    caller = user(runs_per_minute=4)
    servers = [quotas(stores.counters) for _ in range(2)]
    taken = await asyncio.gather(*(servers[number % 2].take(caller) for number in range(20)), return_exceptions=True)
    refusals = [each for each in taken if isinstance(each, RateLimited)]
    assert len(taken) - len(refusals) in {4, 8}  # 8: a minute ended in between
    assert {each.limit for each in refusals} == {"runs_per_minute"}
    assert all(0 < each.retry_after_s <= MINUTE_S for each in refusals)


async def test_a_limit_that_is_raised_counts_at_once(stores: Stores) -> None:
    server = quotas(stores.counters)
    await server.take(user(runs_per_minute=1))
    for _ in range(2):
        try:
            await server.take(user(runs_per_minute=1))
        except RateLimited:
            break
    assert await server.take(user(runs_per_minute=100)) is not None


async def test_refusals_that_are_known_already_cost_no_question(stores: Stores) -> None:
    server = quotas(stores.counters, anonymous_cpu_seconds_per_day="1")
    async with charged(server, ADDRESS) as charge:
        charge.cpu_ms += 1500
    with pytest.raises(RateLimited):
        await server.take(ADDRESS)
    server._counters = Untouchable
    for _ in range(10):
        with pytest.raises(RateLimited) as refusal:
            await server.take(ADDRESS)
        assert 0 < refusal.value.retry_after_s <= DAY_S


async def test_processor_time_adds_up_over_runs_and_servers(stores: Stores) -> None:
    first, second = (quotas(stores.counters, anonymous_cpu_seconds_per_day="1") for _ in range(2))
    for server in (first, second):
        async with charged(server, ADDRESS) as charge:
            charge.cpu_ms += 499
    async with charged(first, ADDRESS) as charge:
        charge.cpu_ms += 1.1
    with pytest.raises(RateLimited) as refusal:
        await second.take(ADDRESS)
    assert (refusal.value.limit, refusal.value.allowed) == ("cpu_seconds_per_day", 1)
    assert await second.take(Caller(address="192.0.2.2")) is not None


async def test_processor_time_that_could_not_be_written_is_owed(tmp_path: Path) -> None:
    with RedisServer() as redis:
        settings = load_settings({"data_dir": str(tmp_path), "redis_url": redis.url}, environ={})
        async with open_stores(settings) as stores:
            server = quotas(stores.counters, anonymous_cpu_seconds_per_day="1", anonymous_concurrent_runs="5")
            async with charged(server, ADDRESS) as charge:
                charge.cpu_ms += 2000
                redis.kill()
            with pytest.raises(PartUnavailable):
                await server.take(ADDRESS)
            redis.start()
            with pytest.raises(RateLimited):
                await server.take(ADDRESS)
