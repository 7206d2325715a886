"""grounds-exec's Socket.IO: live runs with streamed output. What goes over the wire: `wire`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from litestar import asgi
from litestar.types import ControllerRouterHandler, Receive, Scope, Send

from firebox.service.service import Service
from firebox.settings.settings import Settings

if TYPE_CHECKING:  # the library behind is loaded with the first client
    from firebox.doors.grounds.door import Door

PATH = "/socket.io"
"""Source: Socket.IO, default of `path`."""


def mounts(service: Service, settings: Settings, clock: Callable[[], float] = time.monotonic) -> list[ControllerRouterHandler]:
    """Make the handlers of this door. clock: of the rules about how often a client may ask."""

    @cache
    def open_door() -> Door:
        from firebox.doors.grounds.door import Door

        return Door(service, settings, clock)

    @asgi(PATH, copy_scope=True)
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await open_door().transport(scope, receive, send)

    return [serve]
