"""Runs in containers of a real container engine: attach, feed, read, cap, time out, remove, whatever happens.

    create -> attach -> start -> feed standard input, read output as it arrives -> exit status -> remove

A run takes a slot like any other run. Its container is removed when its context is left, when its time is over, when the
server stops and, where one of these could not reach the engine, by the sweeper.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from firebox.domain.errors import ShuttingDown
from firebox.engine.admission import Admission
from firebox.engine.container_spec import ContainerSpec
from firebox.settings.settings import Settings

if TYPE_CHECKING:  # aiohttp and aiodocker are slow to import: only a server with a container engine pays for them
    from firebox.engine.backends.docker_sweeper import Sweeper
    from firebox.engine.container_run import ContainerRun

REMOVAL_PATIENCE_S = 5.0
"""How long whoever leaves a run waits for its container to be gone. The removal goes on after that, and keeps the slot."""


@dataclass(frozen=True, slots=True)
class ContainerStatistics:
    """What goes on in containers, for metrics. available: the engine answered when it was last asked."""

    available: bool
    in_flight: int


class Containers:
    """A container engine, reached over its API (Docker or Podman)."""

    def __init__(
        self,
        sweeper: Sweeper,
        admission: Admission,
        make_run: Callable[[ContainerSpec], ContainerRun],
    ) -> None:
        self._sweeper = sweeper
        self._admission = admission
        self._make_run = make_run
        self._live: set[ContainerRun] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, spec: ContainerSpec, client: str) -> AbstractAsyncContextManager[ContainerRun]:
        """Run a container; leaving the context removes it, whatever happened.

        client: whom fairness counts the run against.
        Raises, on entry: QueueFull, ShuttingDown, PartUnavailable, NotFound for an image that the engine does not have,
        ContainerError.
        """
        return self._start(spec, client)

    def statistics(self) -> ContainerStatistics:
        return ContainerStatistics(self._sweeper.available, len(self._live))

    def cancel(self) -> None:
        """Take no new runs and end those that are under way: whoever reads their output gets ShuttingDown."""
        self._closed = True
        for run in list(self._live):
            run.abandon(ShuttingDown("the server is stopping", retry_after_s=1.0))

    async def close(self) -> None:
        """End every run, and wait until its container is gone or the engine has not answered in time."""
        self.cancel()
        endings = {self._end(run) for run in list(self._live)} | self._ending
        if endings:
            await asyncio.wait(endings)

    @asynccontextmanager
    async def _start(self, spec: ContainerSpec, client: str) -> AsyncGenerator[ContainerRun]:
        await self._admission.acquire(client, len(spec.stdin or b""))
        if self._closed:
            self._admission.release(client)
            raise ShuttingDown("the server is stopping", retry_after_s=1.0)
        run = self._make_run(spec)
        run.client = client
        self._live.add(run)
        self._sweeper.spare(run.name)
        try:
            await run.begin()
            yield run
        finally:
            ending = self._end(run)
            # A caller that is cancelled while it waits leaves at once; the removal goes on without it.
            await asyncio.wait({ending}, timeout=REMOVAL_PATIENCE_S)

    def _end(self, run: ContainerRun) -> asyncio.Task[None]:
        """Begin to end a run, once."""
        if run.ending is None:
            run.ending = asyncio.create_task(self._remove(run))
            self._ending.add(run.ending)
            run.ending.add_done_callback(self._ending.discard)
        return run.ending

    async def _remove(self, run: ContainerRun) -> None:
        removed = False
        try:
            removed = await run.end()
        finally:
            self._live.discard(run)
            self._admission.release(run.client)
            self._sweeper.spare_no_more(run.name)
            if not removed:
                self._sweeper.wake()


@asynccontextmanager
async def open_containers(settings: Settings, admission: Admission) -> AsyncGenerator[Containers | None]:
    """Connect to the engine that the settings name; None when they name none.

    An engine that does not answer is no reason not to start: its runs are refused until it does.
    admission: the slots that these runs share with those in sandboxes.
    """
    if not settings.docker_url:
        yield None
        return
    from firebox.engine.backends.docker_engine import ContainerEngine
    from firebox.engine.backends.docker_sweeper import Sweeper
    from firebox.engine.container_run import ContainerRun

    engine = ContainerEngine(settings.docker_url)
    sweeper = Sweeper(engine)
    containers = Containers(sweeper, admission, lambda spec: ContainerRun(spec, engine))
    try:
        await sweeper.start()
        try:
            yield containers
        finally:
            await containers.close()
            await sweeper.close()
    finally:
        await engine.close()
