"""Runner's gRPC service, if enabled."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from firebox.doors.http.fair_scheduler import FairScheduler
from firebox.doors.runner.grpc_logs import silence
from firebox.service.service import Service
from firebox.settings.settings import Settings


@asynccontextmanager
async def serve_grpc(service: Service, settings: Settings, turns: FairScheduler) -> AsyncGenerator[str]:
    """Serve while the context is open. Yield the address, or "" if `grpc_port` is -1. Raises: SettingsError."""
    if settings.grpc_port < 0:
        yield ""
        return
    silence()
    # Imported late: the library takes 12 MB.
    from firebox.doors.runner.servicer import open_server

    async with open_server(service, settings, turns) as address:
        yield address
