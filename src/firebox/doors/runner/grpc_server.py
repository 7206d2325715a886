"""Runner's gRPC service, where one is wanted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from firebox.doors.http.turns import Turns
from firebox.doors.runner.grpc_logs import silence
from firebox.service.service import Service
from firebox.settings.settings import Settings


@asynccontextmanager
async def serve_grpc(service: Service, settings: Settings, turns: Turns) -> AsyncGenerator[str]:
    """Serve while the context is open; gives the address that is listened on, "" when `grpc_port` is -1.

    Raises: SettingsError for an address that cannot be had.
    """
    if settings.grpc_port < 0:
        yield ""
        return
    silence()
    # The library costs a server 12 MB: only who wants it pays.
    from firebox.doors.runner.servicer import open_server

    async with open_server(service, settings, turns) as address:
        yield address
