"""A run in our own sandbox, told as replies."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from firebox.domain.model import Event, Finished, Output, StageExited, StageStarted
from firebox.doors.grounds.wire import Reply, Request, last_words, to_job
from firebox.doors.http.text import StreamText
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.settings.settings import Settings


async def run_in_sandbox(request: Request, caller: Caller, service: Service, settings: Settings) -> AsyncGenerator[Reply]:
    """Run a program and tell what happens. Raises: what `Service.start` raises."""
    runtime = service.resolve(request.language, "*")
    job = to_job(request, runtime, settings)
    async with service.start(job, caller) as run:
        teller = _Teller()
        async for event in run.events():
            for reply in teller.feed(event):
                yield reply


class _Teller:
    """From the events of a run to replies."""

    def __init__(self) -> None:
        self._text = StreamText()
        self._started = False

    def feed(self, event: Event) -> list[Reply]:
        match event:
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
                return [last_words(result)]
