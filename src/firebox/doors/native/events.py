"""Events as the native API sends them: one JSON object each, the same over SSE and WebSocket."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from firebox.domain import model
from firebox.domain.limits import StageName
from firebox.doors.http.output import Pieces
from firebox.doors.http.text import StreamText
from firebox.doors.native import wire


class Event(Struct, frozen=True, kw_only=True, tag_field="type"):
    """sequence: grows with every event of a run."""

    sequence: int


class StageStarted(Event, frozen=True, kw_only=True, tag="stage_started"):
    """A program is now running."""

    stage: StageName


class Output(Event, frozen=True, kw_only=True, tag="output"):
    """A piece of output."""

    stage: StageName
    stream: model.StreamName
    data: str
    base64: Annotated[str | UnsetType, Meta(description="The exact bytes, when they were asked for.")] = UNSET


class StageExited(Event, frozen=True, kw_only=True, tag="stage_exited"):
    """A stage is over and its output complete."""

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
    """Translates the events of one run, in order from the first. exact: give the bytes of output too."""

    def __init__(self, *, exact: bool = False) -> None:
        self._exact = exact
        self._text = StreamText()

    async def feed(self, event: model.Event) -> AsyncIterator[Written]:
        """Translate an event; a piece of output that ends within a character may give none yet."""
        match event:
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
                large = await wire.write_artifacts(result, pieces)
                finished = Finished(sequence=event.sequence, result=wire.from_streamed_result(result, large))
                yield Written(finished, pieces.put_into(_encode(finished)))


async def translate(
    events: AsyncIterator[model.Event], after_sequence: int = -1, *, exact: bool = False
) -> AsyncIterator[Written]:
    """Translate a run's events from its first one, and give those after a sequence number.

    From the first, because a character may have begun before that number and ended after it.
    """
    translator = EventTranslator(exact=exact)
    async for event in events:
        async for written in translator.feed(event):
            if event.sequence > after_sequence:
                yield written


def _written(event: AnyEvent) -> Written:
    return Written(event, [_encode(event)])
