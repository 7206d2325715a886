"""grounds-exec's Socket.IO: live runs with streamed output. What goes over the wire: `wire`."""

from __future__ import annotations

from litestar.types import ControllerRouterHandler

from firebox.config import Settings
from firebox.service.service import Service


def mounts(service: Service, settings: Settings) -> list[ControllerRouterHandler]:
    """Make the handlers of this door."""
    del service, settings
    return []
