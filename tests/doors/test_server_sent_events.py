"""Server-sent events: their format, and streams that stay open while nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from firebox.doors.http.server_sent_events import event_parts, with_keep_alive


def test_an_event_has_a_name_and_data_and_may_have_an_id() -> None:
    assert b"".join(event_parts("output", b'{"a":', b"1}", sequence=7)) == b'id: 7\nevent: output\ndata: {"a":1}\n\n'
    assert b"".join(event_parts("progress", b"{}")) == b"event: progress\ndata: {}\n\n"


async def test_silence_is_reported_and_no_item_is_lost() -> None:
    more = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        yield 1
        await more.wait()
        yield 2

    received: list[int | None] = []
    async for item in with_keep_alive(items(), keep_alive_s=0.001):
        received.append(item)
        if received.count(None) == 2:
            more.set()
    assert received[:3] == [1, None, None]
    assert received[-1] == 2
    assert set(received) == {1, 2, None}


async def test_closing_the_stream_cancels_the_wait_for_the_next_item() -> None:
    cancelled = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        yield 1

    stream = with_keep_alive(items(), keep_alive_s=0.001)
    assert await anext(stream) is None
    await stream.aclose()
    await asyncio.wait_for(cancelled.wait(), 10)
