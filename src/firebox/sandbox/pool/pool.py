"""Sandboxes kept ready, so that making one is off a request's path.

Sandboxes of one spec are interchangeable and lie on one shelf. `take` pops a ready one and has a replacement made; with none
ready it waits for the first that is: slower, never refused. How many a shelf holds follows what is asked for: those named at the
start never run dry, others are there as long as somebody uses them, and all of them shrink when nobody does or memory is short.

Making one costs about as much as a short run, so it gives way: replacements are made once no sandbox is in use, or after a while,
or when half of a shelf is gone.
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
"""After how long a take counts half."""
NAMED_LEAST = 2
"""How many of a kind named at the start are ready whatever happens."""
FORGOTTEN = 0.05
"""A demand so small that a shelf without a name goes."""
UNNAMED_MOST = 4
"""How many times what one kind may have all kinds without a name may have ready, together."""
SHELVES = 32
"""Shelves at most; the one that was used least lately goes for a new one."""
LOW_MEMORY = 0.1
"""Below this part of the machine's memory no more than one sandbox of a kind is kept ready."""

_REFILL_LATER_S = 0.04
"""How long a refill waits at most while half of a shelf is there: a short program then has its processor to itself."""
_REFILL_IDLE_S = 0.003
"""How long it waits once no sandbox is in use: who had the last one has an answer by then."""
_MAKING_AT_ONCE = max(2, min(4, os.cpu_count() or 1))
"""More than there are processors would only make each of them wait for the others."""
_PAUSE_AFTER_FAILURE_S = 1.0
_LOOK_EVERY_S = 5.0


class PoolStatistics(NamedTuple):
    """ready: sandboxes waiting; target: how many there should be; made_on_demand: takes that found none; prestarted: programs
    that had been started already, restored: from a template.

    launcher_restarts: beyond the first start. alive: sandboxes there are, ready or in use.
    """

    ready: int
    target: int
    taken: int
    made_on_demand: int
    prestarted: int
    restored: int
    launcher_restarts: int
    alive: int


class _Shelf:
    """Ready sandboxes of one kind. named: at the start. demand: takes, each counting less as time goes by, at `counted_at`.

    waiting: takes that found none. There are never fewer sandboxes being made than these.
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
        """Take out the one who waits longest and has not left."""
        while self.waiting:
            waiting = self.waiting.popleft()
            if not waiting.done():
                return waiting
        return None

    def demand_at(self, now: float) -> float:
        return float(self.demand * 0.5 ** ((now - self.counted_at) / HALF_LIFE_S))

    def count_take(self, now: float) -> None:
        self.demand = self.demand_at(now) + 1
        self.counted_at = now


class Pool:
    """Keeps up to `most` sandboxes of a kind ready.

    named: the kinds that are kept from the start on. template_age_s, template_runs: after which a template is made anew.
    no_template: is told which kind has none although it could, and why.
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
        kinds = dict.fromkeys(map(_interchangeable, named))
        self._shelves = {kind: _Shelf(named=True, demand=most + 1.0, counted_at=now) for kind in kinds}
        self._is_low_on_memory = False
        self._wake = asyncio.Event()
        self._refilling: asyncio.Task[None] | None = None
        self._refill_at: asyncio.TimerHandle | None = None
        self._under_way = set[asyncio.Task[None]]()
        self._making = 0
        self._in_use = 0
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._taken = 0
        self._made_on_demand = 0
        self._prestarted = 0
        self._restored = 0

    async def start(self) -> None:
        """Start the launchers and begin to fill. Raises: SandboxFailure when this host cannot make a sandbox."""
        await self._launchers.start()
        self._refilling = asyncio.create_task(self._refill())
        self._wake.set()

    async def take(self, specification: SandboxSpec) -> Sandbox:
        """Return a sandbox that nobody has used. The caller closes it. Raises: SandboxFailure."""
        self._taken += 1
        sandbox = await self._take(_interchangeable(specification))
        self._in_use += 1
        sandbox.on_close = self._note_closed
        return sandbox

    async def _take(self, kind: SandboxSpec) -> Sandbox:
        shelf = self._shelf(kind)
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
        if kind.prestart is not None and not self._templates.has(kind):
            # To start a program prestart for somebody who waits would take longer than to start it.
            return await self._take(kind._replace(prestart=None))
        self._made_on_demand += 1
        return await self._wait_for_one(kind, shelf)

    async def _wait_for_one(self, kind: SandboxSpec, shelf: _Shelf) -> Sandbox:
        """Return the next sandbox of a kind that gets ready. Raises: SandboxFailure."""
        if self._closed:
            raise _closed()
        waiting: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        shelf.waiting.append(waiting)
        if shelf.making < len(shelf.waiting):
            self._begin(kind, shelf)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting in shelf.waiting:
                shelf.waiting.remove(waiting)
            elif not waiting.cancelled() and waiting.exception() is None:
                self._put(kind, shelf, waiting.result())
            raise

    def _note_closed(self) -> None:
        self._in_use -= 1
        if not self._in_use and self._refill_at is not None:
            self._refill_within(_REFILL_IDLE_S)

    def _refill_within(self, pause_s: float) -> None:
        """Refill after a pause, unless that is to be done sooner."""
        loop = asyncio.get_running_loop()
        if self._refill_at is not None:
            if self._refill_at.when() <= loop.time() + pause_s:
                return
            self._refill_at.cancel()
        self._refill_at = loop.call_later(pause_s, self._wake.set)

    def count_start(self, sandbox: Sandbox, ended: Exit) -> None:
        """Note how the program of a sandbox of ours began, and whether it shows that its template does not work."""
        if sandbox.was_prestarted:
            self._prestarted += 1
            self._restored += sandbox.template is not None
        elif sandbox.was_prestarted is False and sandbox.template is not None and not ended.memory_limit_hit:
            # Where a job allows too little memory what was restored is killed, and others may go on with the template.
            sandbox.template.failed = True

    def forget(self, layers: Iterable[str]) -> None:
        """Let go of what is ready above these layers: their package is gone."""
        gone = set(layers)
        for kind in [kind for kind in self._shelves if gone.intersection(kind.layers)]:
            self._remove(kind)

    def statistics(self) -> PoolStatistics:
        now = self._clock()
        return PoolStatistics(
            ready=sum(len(shelf.ready) for shelf in self._shelves.values()),
            target=sum(self._targets(now).values()),
            taken=self._taken,
            made_on_demand=self._made_on_demand,
            prestarted=self._prestarted,
            restored=self._restored,
            launcher_restarts=self._launchers.restarts,
            alive=self._launchers.alive,
        )

    async def close(self) -> None:
        """Stop refilling and end every ready sandbox. Who still waits for one is told."""
        self._closed = True
        if self._refilling is not None:
            self._refilling.cancel()
        for timer in (self._timer, self._refill_at):
            if timer is not None:
                timer.cancel()
        making = list(self._under_way)
        for task in making:
            task.cancel()
        await asyncio.gather(*making, *([self._refilling] if self._refilling is not None else []), return_exceptions=True)
        await self._templates.close()
        for kind, shelf in list(self._shelves.items()):
            while (waiting := shelf.next_waiting()) is not None:
                waiting.set_exception(_closed())
            self._remove(kind)

    def _shelf(self, kind: SandboxSpec) -> _Shelf:
        """Find the shelf of a kind, or make it, and count a take."""
        now = self._clock()
        shelf = self._shelves.get(kind)
        if shelf is None:
            others = [other for other, each in self._shelves.items() if not each.named]
            if len(others) >= SHELVES:
                self._remove(min(others, key=lambda other: self._shelves[other].counted_at))
            shelf = self._shelves[kind] = _Shelf(named=False, demand=0.0, counted_at=now)
        shelf.count_take(now)
        return shelf

    def _wanted(self, shelf: _Shelf, now: float) -> int:
        """Say how many a shelf should hold. A kind that was taken once is not worth a sandbox yet."""
        least = min(NAMED_LEAST, self._most) if shelf.named else 0
        if self._is_low_on_memory:
            return min(1, least)
        return max(least, min(self._most, math.ceil(shelf.demand_at(now) - 1)))

    def _targets(self, now: float) -> dict[SandboxSpec, int]:
        """Say how many each shelf should hold, the one most asked for first.

        Kinds are as many as clients think of: those without a name share the room that is left for them, first one each.
        """
        room = UNNAMED_MOST * self._most
        shelves = sorted(self._shelves.items(), key=lambda item: item[1].demand_at(now), reverse=True)
        wanted = {kind: self._wanted(shelf, now) for kind, shelf in shelves}
        targets = {kind: wanted[kind] if shelf.named else 0 for kind, shelf in shelves}
        for most in (1, self._most):
            for kind, shelf in shelves:
                if not shelf.named:
                    more = min(wanted[kind], most) - targets[kind]
                    targets[kind] += min(more, room)
                    room -= min(more, room)
        return targets

    async def _refill(self) -> None:
        """Keep up with what is taken."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._refill_at is not None:
                self._refill_at.cancel()
                self._refill_at = None
            now = self._clock()
            for kind, target in self._targets(now).items():
                shelf = self._shelves[kind]
                shelf.target = target
                while len(shelf.ready) + shelf.making - len(shelf.waiting) < target and self._making < _MAKING_AT_ONCE:
                    self._begin(kind, shelf)
                while len(shelf.ready) > target:
                    shelf.ready.pop().close()
                if not shelf.named and not shelf.making and shelf.demand_at(now) < FORGOTTEN:
                    self._remove(kind)
            self._look_later()

    def _look_later(self) -> None:
        """See to it that shelves shrink, as long as one of them can: an idle pool does nothing at all."""
        can_shrink = any(not shelf.named or len(shelf.ready) > NAMED_LEAST for shelf in self._shelves.values())
        if can_shrink and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        self._timer = None
        self._is_low_on_memory = _available_part_of_memory() < LOW_MEMORY
        self._wake.set()

    def _begin(self, kind: SandboxSpec, shelf: _Shelf) -> None:
        """Begin to make a sandbox for a shelf."""
        shelf.making += 1
        self._making += 1
        task = asyncio.create_task(self._add(kind, shelf))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _add(self, kind: SandboxSpec, shelf: _Shelf) -> None:
        sandbox: Sandbox | None = None
        failure: Exception | None = None
        try:
            self._templates.want(kind)
            sandbox = await self._launchers.make(kind, self._templates.take(kind))
        except Exception as reason:  # noqa: BLE001 - whatever it is, somebody may wait
            failure = reason
        finally:
            shelf.making -= 1
            self._making -= 1
        if sandbox is not None:
            self._put(kind, shelf, sandbox)
            self._wake.set()
            return
        # A request that needs one now hears the reason; the pool only tries again later.
        asyncio.get_running_loop().call_later(_PAUSE_AFTER_FAILURE_S, self._wake.set)
        waiting = shelf.next_waiting() if shelf.making < len(shelf.waiting) else None
        if failure is not None and waiting is not None:
            waiting.set_exception(failure)
        elif failure is not None and not isinstance(failure, SandboxFailure):
            raise failure

    def _put(self, kind: SandboxSpec, shelf: _Shelf, sandbox: Sandbox) -> None:
        """Hand a sandbox that nobody has used to the one who waits longest, or keep it."""
        waiting = shelf.next_waiting()
        if waiting is not None:
            waiting.set_result(sandbox)
        elif self._shelves.get(kind) is shelf:
            shelf.ready.append(sandbox)
        else:
            sandbox.close()

    def _remove(self, kind: SandboxSpec) -> None:
        shelf = self._shelves.pop(kind)
        self._templates.forget(kind)
        while shelf.ready:
            shelf.ready.pop().close()


def _closed() -> SandboxFailure:
    return SandboxFailure("take", detail="the pool is closed")


def _interchangeable(specification: SandboxSpec) -> SandboxSpec:
    """Forget what can still be set when the command comes."""
    defaults = SandboxSpec()
    return specification._replace(memory_bytes=defaults.memory_bytes, processes=defaults.processes)


def _available_part_of_memory() -> float:
    """Say which part of the machine's memory could be had now, 1 when the kernel does not resume_words."""
    values: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            name, value = line.split()[:2]
            values[name] = float(value)
            if name == "MemAvailable:":
                break
    return values.get("MemAvailable:", 1.0) / max(values.get("MemTotal:", 1.0), 1.0)
