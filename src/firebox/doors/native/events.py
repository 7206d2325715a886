"""Events of the native API: JSON objects, the same over SSE and WebSocket."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from firebox.domain import model
from firebox.domain.limits import StageName
from firebox.doors.http.output import Pieces, StreamText, in_chunks
from firebox.doors.http.server_sent_events import COMMENT, event_parts, with_keep_alive
from firebox.doors.native import wire


class Event(Struct, frozen=True, kw_only=True, tag_field="type"):
    """sequence: increases with every event of a run."""

    sequence: int


class StageStarted(Event, frozen=True, kw_only=True, tag="stage_started"):
    """A program has started."""

    stage: StageName


class Output(Event, frozen=True, kw_only=True, tag="output"):
    """A piece of output."""

    stage: StageName
    stream: model.StreamName
    data: str
    base64: Annotated[str | UnsetType, Meta(description="The exact bytes, if requested.")] = UNSET


class StageExited(Event, frozen=True, kw_only=True, tag="stage_exited"):
    """A stage has ended, and its output is complete."""

    stage: StageName
    result: wire.Stage


class Finished(Event, frozen=True, kw_only=True, tag="finished"):
    """The last event."""

    result: wire.Result


AnyEvent = StageStarted | Output | StageExited | Finished

_encode = msgspec.json.Encoder().encode


class Written(NamedTuple):
    """An event, and its JSON in parts."""

    event: AnyEvent
    parts: list[bytes]


class EventTranslator:
    """Converts the events of one run, in order from the first. exact: include the exact bytes of output."""

    def __init__(self, *, exact: bool = False) -> None:
        self._exact = exact
        self._text = StreamText()

    async def feed(self, event: model.Event) -> AsyncIterator[Written]:
        """Convert an event. Yields nothing for output that ends within a character, until the rest of the character arrives."""
        match event:
            case model.Queued() | model.Dispatched():
                pass  # the API has no event for them
            case model.StageStarted():
                yield _written(StageStarted(sequence=event.sequence, stage=event.stage))
            case model.Output():
                text = self._text.feed(event)
                exact = base64.b64encode(event.data).decode() if self._exact else UNSET
                if text or exact:
                    output = Output(sequence=event.sequence, stage=event.stage, stream=event.stream, data=text, base64=exact)
                    yield _written(output)
            case model.StageExited(result=result):
                for stream, text in self._text.rest():
                    yield _written(Output(sequence=event.sequence, stage=result.stage, stream=stream, data=text))
                yield _written(StageExited(sequence=event.sequence, stage=result.stage, result=wire.from_stage(result)))
            case model.Finished(result=result):
                pieces = Pieces()
                finished = Finished(sequence=event.sequence, result=await wire.from_streamed_result(result, pieces))
                yield Written(finished, pieces.put_into(_encode(finished)))


async def translate(
    events: AsyncIterator[model.Event], after_sequence: int = -1, *, exact: bool = False
) -> AsyncIterator[Written]:
    """Convert the events of a run, and yield those after a sequence number. Reads from the first event, because a character may
    have started before that number and ended after it.
    """
    translator = EventTranslator(exact=exact)
    async for event in events:
        async for written in translator.feed(event):
            if event.sequence > after_sequence:
                yield written


async def event_stream(events: AsyncIterator[Written]) -> AsyncIterator[bytes]:
    """Write events as server-sent events."""
    async with aclosing(with_keep_alive(events)) as kept_alive:
        async for written in kept_alive:
            if written is None:
                yield COMMENT
                continue
            event, parts = written
            name = str(type(event).__struct_config__.tag)
            async for piece in in_chunks(event_parts(name, *parts, sequence=event.sequence)):
                yield piece


def _written(event: AnyEvent) -> Written:
    return Written(event, [_encode(event)])
