"""Asynchronous runs: accepted now, followed later, kept for a while after they ended."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Literal

from firebox.domain.errors import NotFound
from firebox.domain.model import Cancel, Dispatched, Finished, Job, Queued, Result, Run
from firebox.service.callers import Caller
from firebox.service.event_log import EventLog

KEPT_BYTES = 256 * 1024 * 1024
"""Maximum output of ended runs kept in memory, all runs together; the oldest are evicted first."""


class StoredRun:
    """One asynchronous run. owner: its user's account, "" for anybody's. result: None until it has ended."""

    def __init__(self, run: Run, *, owner: str) -> None:
        self.id = run.id
        self.runtime = run.runtime
        self.owner = owner
        self.log = EventLog()
        self.result: Result | None = None
        self._run: Run | None = run
        self._ended = asyncio.Event()

    @property
    def state(self) -> Literal["queued", "running", "ended"]:
        """How far it is: "queued", "running" or "ended"."""
        if self._run is None:
            return "ended"
        return "queued" if self._run.is_queued else "running"

    @property
    def kept_bytes(self) -> int:
        """Memory taken: the log, and the same output once more in the result."""
        return 2 * self.log.kept_bytes + sum(len(file.content) for file in (self.result.artifacts if self.result else ()))

    async def cancel(self) -> None:
        """Kill the run if it has not ended, and wait until it has."""
        if self._run is not None:
            await self._run.send(Cancel())
        await self._ended.wait()

    async def follow(self, run: Run, context: AsyncExitStack) -> None:
        """Log the events of the run to its end. context: of the run; it is closed then."""
        try:
            async with context:
                async for event in run.events():
                    if isinstance(event, Finished):
                        self.result = event.result
                    if not isinstance(event, Queued | Dispatched):
                        self.log.append(event)
        finally:
            self._run = None  # it holds the files of the job
            self._ended.set()


class StoredRuns:
    """The asynchronous runs of this process.

    start: as `Service.start`. retention_s: how long an ended run is kept. kept: maximum number of ended runs.
    A run belongs to the user who started it. For others it does not exist, except for admins. A run without a user belongs to
    anyone who knows its id, which is hard to guess.
    """

    def __init__(
        self, start: Callable[[Job, Caller], AbstractAsyncContextManager[Run]], *, retention_s: float, kept: int
    ) -> None:
        self._start = start
        self._retention_s = retention_s
        self._kept = kept
        self._kept_bytes = 0
        self._live: dict[str, StoredRun] = {}
        self._ended: OrderedDict[str, StoredRun] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, job: Job, caller: Caller) -> StoredRun:
        """Accept a job of `caller` and let it run on its own. Raises: what `Service.start` raises on entry."""
        async with AsyncExitStack() as context:
            run = await context.enter_async_context(self._start(job, caller))
            stored = StoredRun(run, owner=caller.account)
            task = asyncio.create_task(stored.follow(run, context.pop_all()))
        self._live[stored.id] = stored
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _task: self._keep(stored))
        return stored

    def get(self, run_id: str, caller: Caller) -> StoredRun:
        """Find a run. Raises: NotFound when there never was one of that id, it is kept no longer, or it is another user's."""
        found = self._live.get(run_id) or self._ended.get(run_id)
        if found is None or (found.owner and found.owner != caller.account and not caller.is_admin):
            raise NotFound("run", run_id[:64])
        return found

    async def cancel(self, run_id: str, caller: Caller) -> StoredRun:
        """Kill a run and wait until it has ended; one that has ended already stays as it is. Raises: NotFound."""
        found = self.get(run_id, caller)
        await found.cancel()
        return found

    async def close(self) -> None:
        """Kill what still runs and wait until nothing of it is left."""
        await asyncio.gather(*(stored.cancel() for stored in list(self._live.values())))

    def _keep(self, stored: StoredRun) -> None:
        """Move a run from the live ones to the ended ones, and evict the oldest of those where there are too many."""
        del self._live[stored.id]
        self._ended[stored.id] = stored
        self._kept_bytes += stored.kept_bytes
        while len(self._ended) > self._kept or (self._kept_bytes > KEPT_BYTES and len(self._ended) > 1):
            self._forget(next(iter(self._ended)))
        asyncio.get_running_loop().call_later(self._retention_s, self._forget, stored.id)

    def _forget(self, run_id: str) -> None:
        stored = self._ended.pop(run_id, None)
        if stored is not None:
            self._kept_bytes -= stored.kept_bytes
