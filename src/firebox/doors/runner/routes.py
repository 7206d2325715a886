"""Runner's JSON gateway and /metrics. What goes over the wire: `wire`."""

from __future__ import annotations

from litestar import Router

from firebox.config import Settings
from firebox.service.service import Service


def routers(service: Service, settings: Settings) -> list[Router]:
    """Make the routes of this door."""
    del service, settings
    return []
