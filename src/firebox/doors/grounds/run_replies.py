"""The replies of a run, whatever it runs in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from firebox.domain.model import Cancel, Dispatched, Event, Finished, Output, Queued, Run, StageExited, StageName, StageStarted
from firebox.doors.grounds.wire import Reply, last_words
from firebox.doors.http.text import StreamText


async def replies_of(run: Run, wall_ms: int, compile_wall_ms: int = 0) -> AsyncGenerator[Reply]:
    """Translate a run to replies, and cancel it when it takes too long. wall_ms: 0 for a run with a wall time limit of its own.

    Raises: FireboxError where the backend failed in a way that has a class.
    """
    clock = _Clock(run, wall_ms, compile_wall_ms)
    teller = _Teller()
    try:
        async for event in run.events():
            if isinstance(event, StageStarted):
                clock.start(event.stage)
            elif isinstance(event, Finished) and run.failure is not None:
                raise run.failure
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
        if not self._wall_s:
            return
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
    """From the events of a run to replies."""

    def __init__(self) -> None:
        self._text = StreamText()
        self._started = False

    def feed(self, event: Event, expired: bool) -> list[Reply]:
        match event:
            case Queued() | Dispatched():
                return []
            case StageStarted():
                # The compiler's start is the program's to whoever waits; there is one `start` for both.
                started, self._started = self._started, True
                return [] if started else [Reply("start")]
            case Output():
                text = self._text.feed(event)
                return [Reply(event.stream, text)] if text else []
            case StageExited():
                return [Reply(stream, text) for stream, text in self._text.rest()]
            case Finished(result=result):
                return [last_words(result, expired=expired)]
