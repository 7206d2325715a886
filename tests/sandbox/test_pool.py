"""The pool of idle sandboxes: filled before the first take, it grows with demand and shrinks without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from firebox.sandbox.instance.sandbox import Sandbox, Template
from firebox.sandbox.launcher.launchers import Launchers
from firebox.sandbox.pool import pool as pool_module
from firebox.sandbox.pool.pool import HALF_LIFE_S, SHELVES, UNNAMED_MOST, Pool
from firebox.sandbox.spec import SandboxFailure, SandboxSpec
from tests.sandbox.conftest import Box
from tests.support.waiting import until

NAMED = SandboxSpec()
OTHER = SandboxSpec(writable_bytes=1 << 20)
MOST = 4
NEVER_S = 3600.0


@dataclass
class Clock:
    """A clock that the test sets."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Kept:
    """A pool and its clock."""

    pool: Pool
    clock: Clock = field(default_factory=Clock)

    @property
    def ready(self) -> int:
        return self.pool.statistics().ready

    async def use(self, specification: SandboxSpec) -> None:
        (await self.pool.take(specification)).close()

    async def settled(self, ready: int) -> None:
        """Wait until the pool has this size as its target. It checks at once."""
        self.pool._look()
        await until(lambda: self.pool.statistics().ready == self.pool.statistics().target == ready)


@pytest.fixture
async def kept(box: Box) -> AsyncIterator[Kept]:
    clock = Clock()
    pool = Pool(Launchers([box.launcher]), [NAMED], MOST, clock=clock)
    await pool.start()
    yield Kept(pool, clock)
    await pool.close()


async def test_is_filled_before_the_first_take(kept: Kept) -> None:
    await kept.settled(MOST)


async def test_taken_sandboxes_are_replaced(kept: Kept) -> None:
    await kept.settled(MOST)
    for _ in range(3):
        await kept.use(NAMED)
    await kept.settled(MOST)
    assert kept.pool.statistics().made_on_demand == 0


async def test_shrinks_without_demand_but_never_to_zero(kept: Kept) -> None:
    await kept.settled(MOST)
    kept.clock.now_s += 10 * HALF_LIFE_S
    await kept.settled(2)
    kept.clock.now_s += 1e6
    await kept.settled(2)


async def test_grows_again_with_demand(kept: Kept) -> None:
    kept.clock.now_s += 1e6
    await kept.settled(2)
    for _ in range(MOST + 1):
        await kept.use(NAMED)
    await kept.settled(MOST)


async def test_refills_once_no_sandbox_is_in_use(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_REFILL_LATER_S", NEVER_S)
    await kept.settled(MOST)
    sandbox = await kept.pool.take(NAMED)
    other = await kept.pool.take(NAMED)
    sandbox.close()
    assert kept.pool._refill_at is not None
    assert kept.pool._refill_at.when() - asyncio.get_running_loop().time() > NEVER_S / 2
    other.close()
    await until(lambda: kept.ready == MOST)


async def test_fills_at_once_when_more_than_half_is_gone(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_REFILL_LATER_S", NEVER_S)
    await kept.settled(MOST)
    taken = [await kept.pool.take(NAMED) for _ in range(MOST // 2 + 1)]
    await until(lambda: kept.ready == MOST)
    for sandbox in taken:
        sandbox.close()


async def test_burst_larger_than_the_pool_is_served(kept: Kept) -> None:
    await kept.settled(MOST)
    taken = await asyncio.gather(*(kept.pool.take(NAMED) for _ in range(3 * MOST)))
    assert len({sandbox.number for sandbox in taken}) == 3 * MOST
    for sandbox in taken:
        sandbox.close()
    await kept.settled(MOST)


async def test_a_frequently_used_spec_is_kept_too(kept: Kept) -> None:
    await kept.settled(MOST)
    await kept.use(OTHER)
    await kept.settled(MOST)
    await kept.use(OTHER)
    await kept.settled(MOST + 1)
    kept.clock.now_s += 10 * HALF_LIFE_S
    await kept.settled(2)


async def test_low_memory_leaves_one(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    await kept.settled(MOST)
    monkeypatch.setattr(pool_module, "_available_part_of_memory", lambda: 0.05)
    await kept.use(OTHER)
    await kept.use(OTHER)
    await kept.settled(1)
    monkeypatch.undo()
    await kept.settled(MOST + 1)


async def test_the_number_of_specs_is_bounded(kept: Kept) -> None:
    for number in range(SHELVES + 4):
        await kept.use(SandboxSpec(writable_bytes=(1 << 20) + number))
    assert len(kept.pool._shelves) == SHELVES + 1


async def test_too_many_specs_share_the_room_by_demand(kept: Kept) -> None:
    kinds = [SandboxSpec(writable_bytes=number << 20) for number in range(1, 9)]
    for kind in kinds:
        for _ in range(MOST):
            await kept.use(kind)
    await kept.settled(ready=MOST + UNNAMED_MOST * MOST)
    latest = SandboxSpec(writable_bytes=9 << 20)
    for _ in range(2 * MOST):
        await kept.use(latest)
    await kept.settled(ready=MOST + UNNAMED_MOST * MOST)
    before = kept.pool.statistics().made_on_demand
    await kept.use(latest)
    assert kept.pool.statistics().made_on_demand == before


async def test_busy_specs_leave_one_sandbox_for_a_rarely_used_one(kept: Kept) -> None:
    busy = [SandboxSpec(writable_bytes=number << 20) for number in range(1, UNNAMED_MOST + 2)]
    for kind in busy:
        for _ in range(5 * MOST):
            await kept.use(kind)
    seldom = SandboxSpec(writable_bytes=99 << 20)
    await kept.use(seldom)
    await kept.use(seldom)
    await kept.settled(ready=MOST + UNNAMED_MOST * MOST)
    before = kept.pool.statistics().made_on_demand
    await kept.use(seldom)
    assert kept.pool.statistics().made_on_demand == before


async def test_a_spec_without_its_layer_is_not_kept(kept: Kept, box: Box, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("layer")
    for place in (folder, *folder.parents):
        if place.stat().st_mode & 0o005 != 0o005 and place.owner() == folder.owner():
            place.chmod(place.stat().st_mode | 0o055)
    layered = SandboxSpec(layers=(str(folder),))
    await kept.use(layered)
    await kept.use(layered)
    await kept.settled(MOST + 1)
    kept.pool.forget([str(folder)])
    await kept.settled(MOST)


async def test_closing_leaves_nothing(box: Box, nothing_left: None) -> None:
    pool = Pool(Launchers([box.launcher]), [NAMED], MOST)
    await pool.start()
    await until(lambda: pool.statistics().ready == MOST)
    await pool.close()


class SlowLaunchers:
    """Creates sandboxes when the test requests it, in any order."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[Sandbox]] = []
        self.alive = self.restarts = 0

    async def start(self) -> None:
        return

    async def make(self, _specification: SandboxSpec, _template: Template | None = None) -> Sandbox:
        made: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        self.asked.append(made)
        return await made


class MadeSandbox:
    """A stand-in for a sandbox."""

    is_dead = False

    def __init__(self) -> None:
        self.on_close: Callable[[], None] | None = None
        self.closed = False

    def close(self) -> None:
        self.closed = True


def made_sandbox() -> Sandbox:
    return cast("Sandbox", MadeSandbox())


@pytest.fixture
async def slow() -> AsyncIterator[tuple[Pool, SlowLaunchers]]:
    """A pool of two, both being created."""
    launchers = SlowLaunchers()
    pool = Pool(cast("Launchers", launchers), [NAMED], 2)
    await pool.start()
    await until(lambda: len(launchers.asked) == 2)
    yield pool, launchers
    await pool.close()


async def test_an_empty_shelf_serves_the_next_sandbox(slow: tuple[Pool, SlowLaunchers]) -> None:
    pool, launchers = slow
    takes = [asyncio.create_task(pool.take(NAMED)) for _ in range(3)]
    await until(lambda: len(launchers.asked) == 3)  # what is being made anyway is not made twice
    made = [made_sandbox() for _ in range(3)]
    for number in (1, 2, 0):
        launchers.asked[number].set_result(made[number])
    assert await asyncio.gather(*takes) == [made[1], made[2], made[0]]


async def test_a_waiting_take_fails_with_the_reason(slow: tuple[Pool, SlowLaunchers]) -> None:
    pool, launchers = slow
    takes = [asyncio.create_task(pool.take(NAMED)) for _ in range(2)]
    await asyncio.sleep(0)
    sandbox = made_sandbox()
    launchers.asked[1].set_exception(SandboxFailure("make"))
    with pytest.raises(SandboxFailure):
        await takes[0]
    launchers.asked[0].set_result(sandbox)
    assert await takes[1] is sandbox


async def test_a_failure_fails_no_take_while_enough_are_being_created(slow: tuple[Pool, SlowLaunchers]) -> None:
    pool, launchers = slow
    take = asyncio.create_task(pool.take(NAMED))
    await asyncio.sleep(0)
    sandbox = made_sandbox()
    launchers.asked[0].set_exception(SandboxFailure("make"))
    launchers.asked[1].set_result(sandbox)
    assert await take is sandbox


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
async def test_a_sandbox_of_a_cancelled_take_is_kept(slow: tuple[Pool, SlowLaunchers], is_late: bool) -> None:
    pool, launchers = slow
    take = asyncio.create_task(pool.take(NAMED))
    await asyncio.sleep(0)
    sandbox = made_sandbox()
    if is_late:
        [(kind, shelf)] = pool._shelves.items()
        pool._put(kind, shelf, sandbox)
        take.cancel()
    else:
        take.cancel()
        launchers.asked[0].set_result(sandbox)
    with pytest.raises(asyncio.CancelledError):
        await take
    await until(lambda: pool.statistics().ready == 1)
    assert await pool.take(NAMED) is sandbox


async def test_a_waiting_take_fails_with_any_error(slow: tuple[Pool, SlowLaunchers]) -> None:
    pool, launchers = slow
    takes = [asyncio.create_task(pool.take(NAMED)) for _ in range(2)]
    await asyncio.sleep(0)
    for made in launchers.asked:
        made.set_exception(AssertionError("a bug"))
    for take in takes:
        with pytest.raises(AssertionError, match="a bug"):
            await take


async def test_no_take_waits_for_a_closed_pool(slow: tuple[Pool, SlowLaunchers]) -> None:
    pool, launchers = slow
    take = asyncio.create_task(pool.take(NAMED))
    await asyncio.sleep(0)
    await pool.close()
    for waiting in (take, pool.take(NAMED)):
        with pytest.raises(SandboxFailure, match="closed"):
            await waiting
    assert len(launchers.asked) == 2
