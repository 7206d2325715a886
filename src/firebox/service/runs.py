"""Asynchronous runs: accepted now, asked about later, kept for a while after they ended."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, Literal, TypeVar

import structlog
from msgspec.structs import replace
from ulid import ULID

from firebox.domain.errors import FireboxError, NotFound
from firebox.domain.model import Cancel, Finished, Job, Result, Run, RuntimeName, Timings, Verdict
from firebox.service.callers import Caller
from firebox.service.event_log import EventLog

KEPT_BYTES = 256 * 1024 * 1024
"""Output of ended runs kept in memory at most, all runs together; the oldest go first."""
REFUSAL_S = 0.05
"""How long a submission waits for a refusal or a slot before it counts as waiting in the queue. A refusal by this machine's
executor comes at once; a later one is kept as the run's failure."""

_log = structlog.get_logger("firebox.runs")


T = TypeVar("T")
"""What admitting a job gives, and starting it takes."""

RunStateName = Literal["queued", "running", "ended"]


class StoredRun:
    """One asynchronous run. owner: whose, "" for anybody's; result: None until it has ended; refusal: why it never began."""

    def __init__(self, run_id: str, runtime: RuntimeName, *, owner: str = "") -> None:
        self.id = run_id
        self.runtime = runtime
        self.owner = owner
        self.log = EventLog()
        self.result: Result | None = None
        self.refusal: FireboxError | None = None
        self.settled = asyncio.Event()
        """Set once the run has a slot, or was refused."""
        self.ended = asyncio.Event()
        self._run: Run | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> RunStateName:
        """Say how far it is: "queued", "running" or "ended"."""
        if self.ended.is_set():
            return "ended"
        return "running" if self._run is not None else "queued"

    @property
    def kept_bytes(self) -> int:
        """Memory taken: the log, and the same output once more in the result."""
        return 2 * self.log.kept_bytes + sum(len(file.content) for file in (self.result.artifacts if self.result else ()))

    def begin(self, context: AbstractAsyncContextManager[Run]) -> asyncio.Task[None]:
        """Start to follow the run to its end, on its own."""
        self._task = asyncio.create_task(self._follow(context))
        return self._task

    async def cancel(self) -> None:
        """Kill the run if it has not ended, and wait until it has."""
        if self._run is not None:
            await self._run.send(Cancel())
        elif self._task is not None:
            self._task.cancel()
        await self.ended.wait()

    async def _follow(self, context: AbstractAsyncContextManager[Run]) -> None:
        verdict, reason = Verdict.INTERNAL, "the run ended without a result"
        try:
            async with context as run:
                self._run = run
                self.settled.set()
                async for event in run.events():
                    if isinstance(event, Finished):
                        self.result = event.result
                    self.log.append(event)
        except FireboxError as error:
            self.refusal = error
            reason = error.message
        except asyncio.CancelledError:
            verdict, reason = Verdict.CANCELLED, "cancelled while it waited for a slot"
        except Exception:  # noqa: BLE001 - the run gets a result whatever happens
            _log.exception("an asynchronous run failed", id=self.id)
        finally:
            self._run = self._task = None
            if self.result is None:
                self._give_up(verdict, reason)
            self.settled.set()
            self.ended.set()

    def _give_up(self, verdict: Verdict, reason: str) -> None:
        """Write a result for a run that never had a program."""
        self.result = Result(
            id=self.id,
            runtime=self.runtime,
            verdict=verdict,
            reason=reason,
            compile=None,
            run=None,
            timings=Timings(queue_ms=0, prepare_ms=0, compile_ms=0, run_ms=0),
            artifacts=(),
            isolation=(),
        )
        self.log.append(Finished(sequence=self.log.last_sequence + 1, result=self.result))


class StoredRuns(Generic[T]):
    """The asynchronous runs of this process.

    admit: checks and counts a job. start: starts an admitted one. resolve: which runtime a job means. retention_s: how long an
    ended run is kept; kept: how many ended runs at most.

    A run belongs to the user who started it, and to others it does not exist, except to admins. A run that nobody's token came
    with belongs to whoever has its id, which is hard to guess.
    """

    def __init__(
        self,
        admit: Callable[[Job, Caller], Awaitable[T]],
        start: Callable[[T], AbstractAsyncContextManager[Run]],
        resolve: Callable[[Job], RuntimeName],
        *,
        retention_s: float,
        kept: int,
    ) -> None:
        self._admit = admit
        self._start = start
        self._resolve = resolve
        self._retention_s = retention_s
        self._kept = kept
        self._kept_bytes = 0
        self._live: dict[str, StoredRun] = {}
        self._ended: OrderedDict[str, StoredRun] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, job: Job, caller: Caller) -> StoredRun:
        """Take a job of `caller` and let it run on its own.

        Raises: what `Service.start` raises on entry.
        """
        stored = StoredRun(str(ULID()), self._resolve(job), owner=caller.account)
        task = stored.begin(self._start(await self._admit(replace(job, id=stored.id), caller)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.wait_for(stored.settled.wait(), REFUSAL_S)
        except TimeoutError:
            pass  # it waits in the queue
        except asyncio.CancelledError:
            task.cancel()
            raise
        if stored.refusal is not None:
            raise stored.refusal
        self._live[stored.id] = stored
        if task.done():
            self._keep(stored)
        else:
            task.add_done_callback(lambda _task: self._keep(stored))
        return stored

    def get(self, run_id: str, caller: Caller) -> StoredRun:
        """Find a run.

        Raises: NotFound when there never was one of that id, it is kept no longer, or it is another user's.
        """
        found = self._live.get(run_id) or self._ended.get(run_id)
        if found is None or (found.owner and found.owner != caller.account and not caller.is_admin):
            raise NotFound("run", run_id[:64])
        return found

    async def cancel(self, run_id: str, caller: Caller) -> StoredRun:
        """Kill a run and wait until it has ended; one that has ended already stays as it is.

        Raises: NotFound.
        """
        found = self.get(run_id, caller)
        await found.cancel()
        return found

    async def close(self) -> None:
        """Kill what still runs and wait until nothing of it is left."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _keep(self, stored: StoredRun) -> None:
        """Move a run from the live ones to the ended ones, and drop the oldest of those where there are too many."""
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
