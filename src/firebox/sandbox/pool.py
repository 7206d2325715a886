"""Sandboxes kept ready, so that making one is off a request's path.

A pool holds interchangeable sandboxes of a few specs. `take` pops a ready one and has a replacement made; with none ready,
or for a spec that is not kept, one is made on demand: slower, never refused.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from dataclasses import dataclass, replace

from firebox.sandbox.handle import Sandbox
from firebox.sandbox.launcher_process import LauncherProcess
from firebox.sandbox.spec import SandboxFailure, SandboxSpec

_MAKING_AT_ONCE = 4
_PAUSE_AFTER_FAILURE_S = 1.0


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """ready: sandboxes waiting; made_on_demand: takes that found none; launcher_restarts: beyond the first start."""

    ready: int
    target: int
    taken: int
    made_on_demand: int
    launcher_restarts: int
    alive: int


class Pool:
    """Keeps `target` sandboxes of each spec in `kept` ready."""

    def __init__(self, launcher: LauncherProcess, kept: tuple[SandboxSpec, ...], target: int) -> None:
        self._launcher = launcher
        self._kept = tuple(dict.fromkeys(_interchangeable(each) for each in kept))
        self._target = target
        self._ready: dict[SandboxSpec, deque[Sandbox]] = {each: deque() for each in self._kept}
        self._making: Counter[SandboxSpec] = Counter()
        self._wake = asyncio.Event()
        self._refilling: asyncio.Task[None] | None = None
        self._taken = 0
        self._made_on_demand = 0

    async def start(self) -> None:
        """Start the launcher and begin to fill. Raises: SandboxFailure when this host cannot make a sandbox."""
        await self._launcher.start()
        self._refilling = asyncio.create_task(self._refill())
        self._wake.set()

    async def take(self, specification: SandboxSpec) -> Sandbox:
        """Return a sandbox that nobody has used. The caller closes it. Raises: SandboxFailure."""
        key = _interchangeable(specification)
        self._taken += 1
        ready = self._ready.get(key)
        while ready:
            sandbox = ready.popleft()
            self._wake.set()
            if self._launcher.owns(sandbox.number) and not sandbox.is_dead:
                return sandbox
            sandbox.close()
        self._made_on_demand += 1
        return await self._launcher.make(key)

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            ready=sum(map(len, self._ready.values())),
            target=self._target * len(self._kept),
            taken=self._taken,
            made_on_demand=self._made_on_demand,
            launcher_restarts=max(self._launcher.starts - 1, 0),
            alive=self._launcher.alive,
        )

    async def close(self) -> None:
        """Stop refilling and end every ready sandbox."""
        if self._refilling is not None:
            self._refilling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refilling
        for ready in self._ready.values():
            while ready:
                ready.popleft().close()

    async def _refill(self) -> None:
        """Keep up with what is taken, several sandboxes under way at once: making one is mostly waiting for the kernel."""
        under_way: set[asyncio.Task[None]] = set()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for key, ready in self._ready.items():
                    while len(ready) + self._making[key] < self._target and self._making.total() < _MAKING_AT_ONCE:
                        self._making[key] += 1
                        task = asyncio.create_task(self._add(key))
                        under_way.add(task)
                        task.add_done_callback(under_way.discard)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _add(self, key: SandboxSpec) -> None:
        try:
            self._ready[key].append(await self._launcher.make(key))
        except SandboxFailure:
            # A request that needs one now hears the reason; the pool only tries again later.
            asyncio.get_running_loop().call_later(_PAUSE_AFTER_FAILURE_S, self._wake.set)
        else:
            self._wake.set()
        finally:
            self._making[key] -= 1


def _interchangeable(specification: SandboxSpec) -> SandboxSpec:
    """Forget what can still be set when the command comes."""
    defaults = SandboxSpec()
    return replace(specification, memory_bytes=defaults.memory_bytes, processes=defaults.processes)
