"""An installation as a stream of JSON: server-sent events, or a document a line.

Source: HTML Living Standard, section 9.2; NDJSON has the media type application/x-ndjson.
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
"""The last word is said again when nothing new came for so long: proxies close silent connections."""

Message = Progress | Result | StreamedFailure
Format = Callable[[Message], bytes]

_log = structlog.get_logger("firebox.piston")


def wanted_format(accept: str) -> tuple[str, Format] | None:
    """Give the media type of the stream that an Accept header asks for, and how to write it; None: no stream."""
    types = [word.partition(";")[0].strip().lower() for word in accept.split(",")]
    return next(((name, write) for name, write in _FORMATS.items() if name in types), None)


async def follow(installation: Installation, write: Format, *, keep_alive_s: float = KEEP_ALIVE_S) -> AsyncIterator[bytes]:
    """Write how far an installation is, and in the end its result or its failure. Whoever stops reading does not stop it."""
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
    except Exception as error:  # noqa: BLE001 - the answer has begun: what is no failure of ours to foresee must end it too
        _log.error("a request met a bug", exc_info=error)
        return StreamedFailure(500, "the server made a mistake; its log says which", "internal")


def _as_event(message: Message) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (str(message.__struct_config__.tag).encode(), wire.encode(message))


def _as_line(message: Message) -> bytes:
    return wire.encode(message) + b"\n"


_FORMATS: dict[str, Format] = {"text/event-stream": _as_event, "application/x-ndjson": _as_line}
