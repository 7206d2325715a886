"""A pool of idle sandboxes, which keeps their creation off the request path.

Sandboxes with equal specs are interchangeable and share a shelf. `take` pops an idle one and schedules a replacement. When the
shelf is empty it waits for the next sandbox: slower, but never refused. The size of a shelf follows demand: shelves named at the
start never shrink to zero, others exist while they are used, and all of them shrink without demand or when memory is low.

Creating a sandbox costs about as much as a short run, so refills yield to runs: they happen once no sandbox is in use, after a
short delay, or when half of a shelf is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.launcher.launchers import Launchers
from firebox.sandbox.pool.templates import Templates
from firebox.sandbox.spec import Exit, SandboxFailure, SandboxSpec

HALF_LIFE_S = 20.0
"""Time after which a take counts half."""
NAMED_LEAST = 2
"""Minimum size of a shelf named at the start."""
FORGOTTEN = 0.05
"""Demand below which an unnamed shelf is removed."""
UNNAMED_MOST = 4
"""Maximum total size of all unnamed shelves, as a multiple of the maximum for one."""
SHELVES = 32
"""Maximum number of unnamed shelves; the least recently used one is evicted."""
LOW_MEMORY = 0.1
"""Share of available memory below which a shelf holds at most one sandbox."""

_REFILL_LATER_S = 0.04
"""Maximum delay of a refill while half of a shelf is left: a short program has its processor to itself."""
_REFILL_IDLE_S = 0.003
"""Delay once no sandbox is in use: the last response has been sent by then."""
_MAKING_AT_ONCE = max(2, min(4, os.cpu_count() or 1))
"""Sandboxes created in parallel. More than there are processors would only wait for each other."""
_PAUSE_AFTER_FAILURE_S = 1.0
_LOOK_EVERY_S = 5.0


class PoolStatistics(NamedTuple):
    """ready: idle sandboxes. target: how many there should be. made_on_demand: takes that found none. prestarted: commands that
    went to a prestarted program. restored: those of them that came from a template. launcher_restarts: beyond the first start.
    """

    ready: int
    target: int
    made_on_demand: int
    prestarted: int
    restored: int
    launcher_restarts: int


class _Shelf:
    """Idle sandboxes of one spec. named: at the start. demand: exponentially decaying number of takes, as of `counted_at`.

    waiting: takes that found none. At least as many sandboxes are being created.
    """

    def __init__(self, *, named: bool, demand: float, counted_at: float) -> None:
        self.named = named
        self.demand = demand
        self.counted_at = counted_at
        self.ready = deque[Sandbox]()
        self.target = 0
        self.making = 0
        self.waiting = deque[asyncio.Future[Sandbox]]()

    def next_waiting(self) -> asyncio.Future[Sandbox] | None:
        """Pop the oldest take that was not cancelled."""
        while self.waiting:
            waiting = self.waiting.popleft()
            if not waiting.done():
                return waiting
        return None

    def demand_at(self, now: float) -> float:
        return float(self.demand * 0.5 ** ((now - self.counted_at) / HALF_LIFE_S))


class Pool:
    """Keeps up to `most` idle sandboxes of each spec.

    named: specs to keep from the start. template_age_s, template_runs: when to renew a template. no_template: called with a spec
    whose template cannot be created, and the reason.
    """

    def __init__(
        self,
        launchers: Launchers,
        named: Iterable[SandboxSpec],
        most: int,
        *,
        template_age_s: float = 600.0,
        template_runs: int = 1000,
        no_template: Callable[[SandboxSpec, str], None] = lambda _kind, _reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._launchers = launchers
        self._templates = Templates(launchers.make, age_s=template_age_s, runs=template_runs, note=no_template, clock=clock)
        self._most = most
        self._clock = clock
        now = clock()
        specs = dict.fromkeys(map(_pool_key, named))
        self._shelves = {spec: _Shelf(named=True, demand=most + 1.0, counted_at=now) for spec in specs}
        self._is_low_on_memory = False
        self._wake = asyncio.Event()
        self._refilling: asyncio.Task[None] | None = None
        self._refill_at: asyncio.TimerHandle | None = None
        self._under_way = set[asyncio.Task[None]]()
        self._making = 0
        self._in_use = 0
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._made_on_demand = 0
        self._prestarted = 0
        self._restored = 0

    async def start(self) -> None:
        """Start the launchers and begin to fill the pool. Raises: SandboxFailure when this host cannot create a sandbox."""
        await self._launchers.start()
        self._refilling = asyncio.create_task(self._refill())
        self._wake.set()

    async def take(self, spec: SandboxSpec) -> Sandbox:
        """Return an unused sandbox. The caller closes it. Raises: SandboxFailure."""
        sandbox = await self._take(_pool_key(spec))
        self._in_use += 1
        sandbox.on_close = self._note_closed
        return sandbox

    async def _take(self, spec: SandboxSpec) -> Sandbox:
        shelf = self._shelf(spec)
        while shelf.ready:
            sandbox = shelf.ready.popleft()
            if not sandbox.is_dead:
                if 2 * len(shelf.ready) < shelf.target:
                    self._wake.set()
                else:
                    self._refill_within(_REFILL_LATER_S)
                return sandbox
            sandbox.close()
        self._wake.set()
        if spec.prestart is not None and not self._templates.has(spec):
            # A prestart takes longer than a fresh start when the caller already waits.
            return await self._take(spec._replace(prestart=None))
        self._made_on_demand += 1
        return await self._wait_for_one(spec, shelf)

    async def _wait_for_one(self, spec: SandboxSpec, shelf: _Shelf) -> Sandbox:
        """Wait for the next sandbox of a spec. Raises: SandboxFailure."""
        if self._closed:
            raise _closed()
        waiting: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        shelf.waiting.append(waiting)
        if shelf.making < len(shelf.waiting):
            self._begin(spec, shelf)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting in shelf.waiting:
                shelf.waiting.remove(waiting)
            elif not waiting.cancelled() and waiting.exception() is None:
                self._put(spec, shelf, waiting.result())
            raise

    def _note_closed(self) -> None:
        self._in_use -= 1
        if not self._in_use and self._refill_at is not None:
            self._refill_within(_REFILL_IDLE_S)

    def _refill_within(self, pause_s: float) -> None:
        """Schedule a refill, unless one is due sooner."""
        loop = asyncio.get_running_loop()
        if self._refill_at is not None:
            if self._refill_at.when() <= loop.time() + pause_s:
                return
            self._refill_at.cancel()
        self._refill_at = loop.call_later(pause_s, self._wake.set)

    def count_start(self, sandbox: Sandbox, ended: Exit) -> None:
        """Count how the command of a sandbox started, and mark a template that does not work."""
        if sandbox.was_prestarted:
            self._prestarted += 1
            self._restored += sandbox.template is not None
        elif sandbox.was_prestarted is False and sandbox.template is not None and not ended.memory_limit_hit:
            # With too little memory a restored program is killed although its template works.
            sandbox.template.failed = True

    def forget(self, layers: Iterable[str]) -> None:
        """Close idle sandboxes with these layers: their package is gone."""
        gone = set(layers)
        for spec in [spec for spec in self._shelves if gone.intersection(spec.layers)]:
            self._remove(spec)

    def statistics(self) -> PoolStatistics:
        now = self._clock()
        return PoolStatistics(
            ready=sum(len(shelf.ready) for shelf in self._shelves.values()),
            target=sum(self._targets(now).values()),
            made_on_demand=self._made_on_demand,
            prestarted=self._prestarted,
            restored=self._restored,
            launcher_restarts=self._launchers.restarts,
        )

    async def close(self) -> None:
        """Stop refilling and close every idle sandbox. Takes that still wait fail."""
        self._closed = True
        tasks = [*self._under_way, *filter(None, [self._refilling])]
        for task in tasks:
            task.cancel()
        for timer in filter(None, (self._timer, self._refill_at)):
            timer.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._templates.close()
        for spec, shelf in list(self._shelves.items()):
            while (waiting := shelf.next_waiting()) is not None:
                waiting.set_exception(_closed())
            self._remove(spec)

    def _shelf(self, spec: SandboxSpec) -> _Shelf:
        """Return the shelf of a spec, created if missing, and count a take."""
        now = self._clock()
        shelf = self._shelves.get(spec)
        if shelf is None:
            others = [other for other, each in self._shelves.items() if not each.named]
            if len(others) >= SHELVES:
                self._remove(min(others, key=lambda other: self._shelves[other].counted_at))
            shelf = self._shelves[spec] = _Shelf(named=False, demand=0.0, counted_at=now)
        shelf.demand = shelf.demand_at(now) + 1
        shelf.counted_at = now
        return shelf

    def _wanted(self, shelf: _Shelf, now: float) -> int:
        """Return the size that a shelf should have. A single take does not justify an idle sandbox yet."""
        least = min(NAMED_LEAST, self._most) if shelf.named else 0
        if self._is_low_on_memory:
            return min(1, least)
        return max(least, min(self._most, math.ceil(shelf.demand_at(now) - 1)))

    def _targets(self, now: float) -> dict[SandboxSpec, int]:
        """Return the size that each shelf should have, highest demand first.

        Clients can invent any number of specs, so unnamed shelves share a bounded total: first one sandbox each, then more.
        """
        room = UNNAMED_MOST * self._most
        shelves = sorted(self._shelves.items(), key=lambda item: item[1].demand_at(now), reverse=True)
        wanted = {spec: self._wanted(shelf, now) for spec, shelf in shelves}
        targets = {spec: wanted[spec] if shelf.named else 0 for spec, shelf in shelves}
        for most in (1, self._most):
            for spec, shelf in shelves:
                if not shelf.named:
                    more = min(wanted[spec], most) - targets[spec]
                    targets[spec] += min(more, room)
                    room -= min(more, room)
        return targets

    async def _refill(self) -> None:
        """Bring shelves to their target size, forever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._refill_at is not None:
                self._refill_at.cancel()
                self._refill_at = None
            now = self._clock()
            for spec, target in self._targets(now).items():
                shelf = self._shelves[spec]
                shelf.target = target
                while len(shelf.ready) + shelf.making - len(shelf.waiting) < target and self._making < _MAKING_AT_ONCE:
                    self._begin(spec, shelf)
                while len(shelf.ready) > target:
                    shelf.ready.pop().close()
                if not shelf.named and not shelf.making and shelf.demand_at(now) < FORGOTTEN:
                    self._remove(spec)
            self._look_later()

    def _look_later(self) -> None:
        """Schedule a check while any shelf can shrink. An idle pool sets no timer."""
        can_shrink = any(not shelf.named or len(shelf.ready) > NAMED_LEAST for shelf in self._shelves.values())
        if can_shrink and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        self._timer = None
        self._is_low_on_memory = _available_part_of_memory() < LOW_MEMORY
        self._wake.set()

    def _begin(self, spec: SandboxSpec, shelf: _Shelf) -> None:
        """Start creating a sandbox for a shelf."""
        shelf.making += 1
        self._making += 1
        task = asyncio.create_task(self._add(spec, shelf))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _add(self, spec: SandboxSpec, shelf: _Shelf) -> None:
        sandbox: Sandbox | None = None
        failure: Exception | None = None
        try:
            self._templates.want(spec)
            sandbox = await self._launchers.make(spec, self._templates.take(spec))
        except Exception as reason:  # noqa: BLE001 - a take may wait for the outcome
            failure = reason
        finally:
            shelf.making -= 1
            self._making -= 1
        if sandbox is not None:
            self._put(spec, shelf, sandbox)
            self._wake.set()
            return
        # A waiting request fails with the reason; the pool itself retries later.
        asyncio.get_running_loop().call_later(_PAUSE_AFTER_FAILURE_S, self._wake.set)
        waiting = shelf.next_waiting() if shelf.making < len(shelf.waiting) else None
        if failure is not None and waiting is not None:
            waiting.set_exception(failure)
        elif failure is not None and not isinstance(failure, SandboxFailure):
            raise failure

    def _put(self, spec: SandboxSpec, shelf: _Shelf, sandbox: Sandbox) -> None:
        """Hand an unused sandbox to the oldest waiting take, or keep it."""
        waiting = shelf.next_waiting()
        if waiting is not None:
            waiting.set_result(sandbox)
        elif self._shelves.get(spec) is shelf:
            shelf.ready.append(sandbox)
        else:
            sandbox.close()

    def _remove(self, spec: SandboxSpec) -> None:
        shelf = self._shelves.pop(spec)
        self._templates.forget(spec)
        while shelf.ready:
            shelf.ready.pop().close()


def _closed() -> SandboxFailure:
    return SandboxFailure("take", detail="the pool is closed")


def _pool_key(spec: SandboxSpec) -> SandboxSpec:
    """Normalize what can still be set when the command arrives."""
    defaults = SandboxSpec()
    return spec._replace(memory_bytes=defaults.memory_bytes, processes=defaults.processes)


def _available_part_of_memory() -> float:
    """Return the share of memory that is available, 1 when the kernel does not report it."""
    values: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            name, value = line.split()[:2]
            values[name] = float(value)
            if name == "MemAvailable:":
                break
    return values.get("MemAvailable:", 1.0) / max(values.get("MemTotal:", 1.0), 1.0)
