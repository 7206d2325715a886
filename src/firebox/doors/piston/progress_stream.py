"""Installation progress as a stream: server-sent events or NDJSON. Source: HTML Living Standard, section 9.2; the media type of
NDJSON is application/x-ndjson.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import msgspec
import structlog

from firebox.domain.errors import FireboxError
from firebox.doors.http.server_sent_events import MEDIA_TYPE, event_parts, with_keep_alive
from firebox.doors.piston import package_wire, wire
from firebox.doors.piston.package_wire import Installation as Result
from firebox.doors.piston.package_wire import Progress, StreamedFailure
from firebox.packages import entry
from firebox.service.installations import Installation

Message = Progress | Result | StreamedFailure
Format = Callable[[Message], bytes]

_log = structlog.get_logger("firebox.piston")


def wanted_format(accept: str) -> tuple[str, Format] | None:
    """Return the media type and encoder that an Accept header asks for; None if it asks for no stream."""
    types = [word.partition(";")[0].strip().lower() for word in accept.split(",")]
    return next(((name, write) for name, write in _FORMATS.items() if name in types), None)


async def follow(installation: Installation, write: Format) -> AsyncIterator[bytes]:
    """Yield the progress of an installation, and finally its result or its failure. The last progress is repeated to keep the
    connection open. A reader that leaves does not stop the installation.
    """
    last: entry.Progress | None = None
    async with aclosing(with_keep_alive(installation.progress())) as kept_alive:
        async for progress in kept_alive:
            last = progress or last
            if last is not None:
                yield write(msgspec.convert(last, Progress, from_attributes=True))
    yield write(await _end(installation))


async def _end(installation: Installation) -> Message:
    try:
        return package_wire.from_installation(installation.entry, await installation.result())
    except FireboxError as error:
        status, failure = package_wire.from_error(error)
        return StreamedFailure(status, failure.message, failure.code, failure.hint)
    except Exception as error:  # noqa: BLE001 - the response has started, so even an unexpected error must end the stream
        _log.error("unhandled error in a request", exc_info=error)
        return StreamedFailure(500, "internal error; see the server log", "internal")


_FORMATS: dict[str, Format] = {
    MEDIA_TYPE: lambda message: b"".join(event_parts(str(message.__struct_config__.tag), wire.encode(message))),
    "application/x-ndjson": lambda message: wire.encode(message) + b"\n",
}
