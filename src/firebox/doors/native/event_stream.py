"""Server-sent events. Source: HTML Living Standard, section 9.2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from firebox.domain.errors import InvalidRequest
from firebox.doors.http.output import in_turns
from firebox.doors.native.events import AnyEvent, Written

KEEP_ALIVE_S = 15.0
"""A comment is sent when nothing else was for so long: proxies close silent connections."""

MEDIA_TYPE = "text/event-stream"


async def event_stream(events: AsyncIterator[Written], *, keep_alive_s: float = KEEP_ALIVE_S) -> AsyncIterator[bytes]:
    """Write events in the stream's format. The number in `id` is what a client sends back as Last-Event-ID."""
    waiting: asyncio.Future[Written | None] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(_next(events))
            done, _ = await asyncio.wait((waiting,), timeout=keep_alive_s)
            if not done:
                yield b": still there\n\n"
                continue
            written = waiting.result()
            waiting = None
            if written is None:
                return
            event, parts = written
            async for piece in in_turns((b"id: %d\nevent: %s\ndata: " % (event.sequence, _name(event)), *parts, b"\n\n")):
                yield piece
    finally:
        if waiting is not None:
            waiting.cancel()


def read_last_event_id(text: str) -> int:
    """Read the Last-Event-ID header; -1 when there is none.

    Raises: InvalidRequest when it is not a sequence number.
    """
    if not text:
        return -1
    if not text.isdecimal() or len(text) > 18:
        raise InvalidRequest("not a sequence number", where="Last-Event-ID")
    return int(text)


async def _next(events: AsyncIterator[Written]) -> Written | None:
    return await anext(events, None)


def _name(event: AnyEvent) -> bytes:
    return str(type(event).__struct_config__.tag).encode()
