"""A run in our own sandbox, as replies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from firebox.domain.model import Cancel, Event, Finished, Output, Run, StageExited, StageName, StageStarted
from firebox.doors.grounds.wire import Reply, Request, compile_wall_ms, last_words, to_job
from firebox.doors.http.text import StreamText
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.settings.settings import Settings


async def run_in_sandbox(request: Request, caller: Caller, service: Service, settings: Settings) -> AsyncGenerator[Reply]:
    """Run a program and yield its replies. Raises: what `Service.start` raises."""
    runtime = service.resolve(request.language, "*")
    job = to_job(request, runtime, settings)
    async with service.start(job, caller) as run:
        teller = _Teller()
        clock = _Clock(run, settings.grounds_wall_ms, compile_wall_ms(runtime, settings))
        try:
            async for event in run.events():
                if isinstance(event, StageStarted):
                    clock.start(event.stage)
                for reply in teller.feed(event, clock.expired):
                    yield reply
        finally:
            clock.stop()


class _Clock:
    """Ends a run some time after it began, whichever stage it is in then.

    A toolchain whose definition asks for more time than a whole run has may take that; a program that comes late by it has half
    of the time of a run at least.
    """

    def __init__(self, run: Run, wall_ms: int, compile_wall_ms: int) -> None:
        self._run = run
        self._wall_s = wall_ms / 1000
        self._compile_wall_s = compile_wall_ms / 1000
        self._began_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def expired(self) -> bool:
        return self._ending is not None

    def start(self, stage: StageName) -> None:
        """Begin to count, or go on in the second stage."""
        loop = asyncio.get_running_loop()
        if self._began_at is None:
            self._began_at = loop.time()
        end = self._began_at + (self._compile_wall_s if stage == "compile" else self._wall_s)
        if stage == "run" and self._compile_wall_s > self._wall_s:
            end = max(end, loop.time() + self._wall_s / 2)
        self.stop()
        self._timer = loop.call_at(end, self._expire)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self._ending = asyncio.create_task(self._run.send(Cancel()))


class _Teller:
    """Converts the events of a run to replies."""

    def __init__(self) -> None:
        self._text = StreamText()
        self._started = False

    def feed(self, event: Event, expired: bool) -> list[Reply]:
        match event:
            case StageStarted():
                # One `start` for the compiler and the program.
                started, self._started = self._started, True
                return [] if started else [Reply("start")]
            case Output():
                text = self._text.feed(event)
                return [Reply(event.stream, text)] if text else []
            case StageExited():
                return [Reply(stream, text) for stream, text in self._text.rest()]
            case Finished(result=result):
                return [last_words(result, expired=expired)]
