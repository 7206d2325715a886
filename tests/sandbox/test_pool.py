"""Ready sandboxes: there before anybody asks, as many as are asked for, gone when nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from firebox.sandbox import pool as pool_module
from firebox.sandbox.launchers import Launchers
from firebox.sandbox.pool import HALF_LIFE_S, SHELVES, UNNAMED_MOST, Pool
from firebox.sandbox.spec import SandboxSpec
from tests.sandbox.conftest import Box
from tests.support.waiting import until

NAMED = SandboxSpec()
OTHER = SandboxSpec(writable_bytes=1 << 20)
MOST = 4


@dataclass
class Clock:
    """A clock that the test sets."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Kept:
    """A pool, its clock, and how many sandboxes it is about to have."""

    pool: Pool
    clock: Clock = field(default_factory=Clock)

    @property
    def ready(self) -> int:
        return self.pool.statistics().ready

    async def use(self, specification: SandboxSpec) -> None:
        (await self.pool.take(specification)).close()

    async def settled(self, ready: int) -> None:
        """Wait until so many are ready and that is what the pool wants. The pool looks again at once."""
        self.pool._look()
        await until(lambda: self.pool.statistics().ready == self.pool.statistics().target == ready)


@pytest.fixture
async def kept(box: Box) -> AsyncIterator[Kept]:
    clock = Clock()
    pool = Pool(Launchers([box.launcher]), [NAMED], MOST, clock=clock)
    await pool.start()
    yield Kept(pool, clock)
    await pool.close()


async def test_is_full_before_anybody_asks(kept: Kept) -> None:
    await kept.settled(MOST)


async def test_what_is_taken_is_replaced(kept: Kept) -> None:
    await kept.settled(MOST)
    for _ in range(3):
        await kept.use(NAMED)
    await kept.settled(MOST)
    assert kept.pool.statistics().made_on_demand == 0


async def test_shrinks_when_nobody_asks_but_never_to_nothing(kept: Kept) -> None:
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


async def test_burst_larger_than_the_pool_is_served(kept: Kept) -> None:
    await kept.settled(MOST)
    taken = await asyncio.gather(*(kept.pool.take(NAMED) for _ in range(3 * MOST)))
    assert len({sandbox.number for sandbox in taken}) == 3 * MOST
    for sandbox in taken:
        sandbox.close()
    await kept.settled(MOST)


async def test_kind_that_is_used_again_and_again_is_kept_ready_too(kept: Kept) -> None:
    await kept.settled(MOST)
    await kept.use(OTHER)
    await kept.settled(MOST)
    await kept.use(OTHER)
    await kept.settled(MOST + 1)
    kept.clock.now_s += 10 * HALF_LIFE_S
    await kept.settled(2)


async def test_memory_that_runs_short_leaves_one(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    await kept.settled(MOST)
    monkeypatch.setattr(pool_module, "_available_part_of_memory", lambda: 0.05)
    await kept.use(OTHER)
    await kept.use(OTHER)
    await kept.settled(1)
    monkeypatch.undo()
    await kept.settled(MOST + 1)


async def test_many_kinds_do_not_pile_up(kept: Kept) -> None:
    for number in range(SHELVES + 4):
        await kept.use(SandboxSpec(writable_bytes=(1 << 20) + number))
    assert len(kept.pool._shelves) == SHELVES + 1


async def test_more_kinds_than_there_is_room_for_share_it_by_demand(kept: Kept) -> None:
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


async def test_busy_kinds_leave_one_for_a_kind_that_is_used_now_and_then(kept: Kept) -> None:
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


async def test_kind_whose_layer_is_gone_is_not_kept(kept: Kept, box: Box, tmp_path_factory: pytest.TempPathFactory) -> None:
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
