"""Server-sent events. Source: HTML Living Standard, section 9.2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")

MEDIA_TYPE = "text/event-stream"
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Headers of a streamed response: proxies must neither store nor buffer it."""
COMMENT = b": still there\n\n"
"""Keeps a connection open; clients ignore it."""
KEEP_ALIVE_S = 15.0
"""Longest silence on a stream: proxies close idle connections."""


def event_parts(name: str, *data: bytes, sequence: int | None = None) -> Sequence[bytes]:
    """Return the parts of an event. data: parts of one line. sequence: its `id`, which clients send back as Last-Event-ID."""
    id_field = b"" if sequence is None else b"id: %d\n" % sequence
    return (b"%sevent: %s\ndata: " % (id_field, name.encode()), *data, b"\n\n")


async def with_keep_alive(items: AsyncIterator[T], keep_alive_s: float = KEEP_ALIVE_S) -> AsyncGenerator[T | None]:
    """Yield each item, and None whenever none arrived for `keep_alive_s`. Items are never None themselves."""
    waiting: asyncio.Future[T | None] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(items, None))
            done, _ = await asyncio.wait((waiting,), timeout=keep_alive_s)
            if not done:
                yield None
                continue
            item, waiting = waiting.result(), None
            if item is None:
                return
            yield item
    finally:
        if waiting is not None:
            waiting.cancel()
