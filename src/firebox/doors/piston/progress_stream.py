"""Installation progress as a stream: server-sent events or NDJSON.

Source: HTML Living Standard, section 9.2; the media type of NDJSON is application/x-ndjson.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import structlog

from firebox.domain.errors import FireboxError
from firebox.doors.piston import package_wire, wire
from firebox.doors.piston.package_wire import Installation as Result
from firebox.doors.piston.package_wire import Progress, StreamedFailure
from firebox.packages import entry
from firebox.service.installations import Installation

KEEP_ALIVE_S = 15.0
"""The latest progress is repeated after this time without news, because proxies close idle connections."""

Message = Progress | Result | StreamedFailure
Format = Callable[[Message], bytes]

_log = structlog.get_logger("firebox.piston")


def wanted_format(accept: str) -> tuple[str, Format] | None:
    """Return the media type and encoder that an Accept header asks for; None if it asks for no stream."""
    types = [word.partition(";")[0].strip().lower() for word in accept.split(",")]
    return next(((name, write) for name, write in _FORMATS.items() if name in types), None)


async def follow(installation: Installation, write: Format, *, keep_alive_s: float = KEEP_ALIVE_S) -> AsyncIterator[bytes]:
    """Yield encoded progress, then the result or the failure. A disconnect does not stop the installation."""
    progress = installation.progress()
    waiting: asyncio.Future[Progress | None] | None = None
    last: Progress | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(_next(progress))
            done, _ = await asyncio.wait((waiting,), timeout=keep_alive_s)
            if done:
                last = waiting.result()
                waiting = None
                if last is None:
                    break
            if last is not None:
                yield write(last)
    finally:
        if waiting is not None:
            waiting.cancel()
    yield write(await _end(installation))


async def _next(progress: AsyncIterator[entry.Progress]) -> Progress | None:
    found = await anext(progress, None)
    return None if found is None else package_wire.from_progress(found)


async def _end(installation: Installation) -> Message:
    try:
        return package_wire.from_installation(installation.entry, await installation.result())
    except FireboxError as error:
        return package_wire.from_late_error(error)
    except Exception as error:  # noqa: BLE001 - the response has started, so even an unexpected error must end the stream
        _log.error("a request met a bug", exc_info=error)
        return StreamedFailure(500, "the server made a mistake; its log says which", "internal")


def _as_event(message: Message) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (str(message.__struct_config__.tag).encode(), wire.encode(message))


def _as_line(message: Message) -> bytes:
    return wire.encode(message) + b"\n"


_FORMATS: dict[str, Format] = {"text/event-stream": _as_event, "application/x-ndjson": _as_line}
