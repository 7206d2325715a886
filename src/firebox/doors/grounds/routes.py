"""grounds-exec's Socket.IO: live runs with streamed output. What goes over the wire: `wire`."""

from __future__ import annotations

import time

from litestar import asgi
from litestar.types import ControllerRouterHandler, Receive, Scope, Send

from firebox.config import Settings
from firebox.doors.grounds.door import Door
from firebox.doors.grounds.pace import Clock
from firebox.service.service import Service

PATH = "/socket.io"
"""Source: Socket.IO, default of `path`."""


def mounts(service: Service, settings: Settings, clock: Clock = time.monotonic) -> list[ControllerRouterHandler]:
    """Make the handlers of this door. clock: of the rules about how often a client may ask."""
    door = Door(service, settings, clock)

    @asgi(PATH, copy_scope=True)
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await door.transport(scope, receive, send)

    return [serve]
