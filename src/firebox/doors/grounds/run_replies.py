"""The replies of a run, whatever it runs in."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from firebox.domain.model import Dispatched, Event, Finished, Output, Queued, Run, StageExited, StageStarted
from firebox.doors.grounds.wire import Reply, last_words
from firebox.doors.http.text import StreamText


async def replies_of(run: Run) -> AsyncGenerator[Reply]:
    """Translate a run to replies. Raises: FireboxError where the backend failed in a way that has a class."""
    text = StreamText()
    is_started = False
    async for event in run.events():
        if isinstance(event, Finished) and run.failure is not None:
            raise run.failure
        if isinstance(event, StageStarted):
            if not is_started:  # one `start`, whether the compiler or the program starts first
                yield Reply("start")
            is_started = True
        for reply in _replies(event, text):
            yield reply


def _replies(event: Event, text: StreamText) -> list[Reply]:
    match event:
        case Queued() | Dispatched() | StageStarted():
            return []
        case Output():
            piece = text.feed(event)
            return [Reply(event.stream, piece)] if piece else []
        case StageExited():
            return [Reply(stream, rest) for stream, rest in text.rest()]
        case Finished(result=result):
            return [last_words(result)]
